"""The embedded deployer: runs the same `__main__.py` as the Pulumi CLI, with no CLI and no plugin.

Belongs here: reading the project and stack files, the resource monitor that stands in for Pulumi's engine, planning,
applying, pruning, readiness, the inventory in the cluster, and the display of all this. Does not belong here: what the
mesh consists of (`components.mesh`). May be imported by `components.cli` only (and its client, `cluster`, by dynamic
providers); inside, `monitor`, `program`, `providers` and `resource` alone know Pulumi, and `cluster` alone opens
sockets.
"""
