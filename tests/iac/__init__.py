"""The stack as code: settings, resources under mocks, trust, the embedded deployer alone and on the local cluster."""
