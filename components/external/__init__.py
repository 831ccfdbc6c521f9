"""Machines outside the cluster: the kind ExternalWorkload, and how a machine joins.

`joining` is pure: what a token or a key may do. `resource` is what the stack declares.
"""
