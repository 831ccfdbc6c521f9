"""The data plane: a transparent sidecar. Imports nothing of `components`; what both need is in `proxy.api`."""
