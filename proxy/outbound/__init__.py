"""Connections of this pod's application to elsewhere, in the order of their steps:

    listen -> original destination -> discover -> detect -> route -> balance -> connect -> tls -> the peer's inbound

Knows nothing of `proxy.inbound`.
"""
