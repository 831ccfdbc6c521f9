"""Connections from elsewhere to this pod, in the order of their steps:

    listen -> original destination -> detect -> authorize -> http | opaque -> forward -> the application

Knows nothing of `proxy.outbound`.
"""
