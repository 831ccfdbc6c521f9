"""Kubernetes as the control plane sees it: a small client, list and watch with resync, leases, events.

Nothing here knows of meshes. `client` hides lightkube (its kubeconfig, credentials and TLS) from everything else;
`reflector`, `leader` and `events` stand on it. Parts of the stack in this folder are declared in `resource.py` and
import none of these.
"""
