"""Bringing running proxies to the version that the control plane declares: waves of restarts, judged by success rates.

Belongs here: which proxies are older (pure), in which wave their workloads are restarted and whether to go on (pure),
the run that does it, its record in the cluster, and its resource. Does not belong here: the control plane's own
rollout (`components.deploy` waits for it), or what a new pod gets (`components.injector`).
"""
