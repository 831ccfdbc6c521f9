"""Injection: which pods get a sidecar, and what exactly they get.

`config`, `annotations`, `decide` and `patch` are pure and are used by the webhook, by `tulle inject --manual` and by
the stack for the control plane's own pods. `webhook`, `certs`, `bundle` and `__main__` talk to the network and to
Kubernetes.
"""
