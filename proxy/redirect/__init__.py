"""The init container: iptables rules that lead a pod's TCP through the proxy. Not imported by the running proxy."""
