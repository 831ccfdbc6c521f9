"""The mesh's guardrails: pure rules (`rules`), and the Pulumi policy pack that serves them (`__main__`).

The pack runs in an environment of its own (`requirements.lock`); the embedded deployer applies the same rules in its
plan. Does not belong here: anything that asks a cluster.
"""
