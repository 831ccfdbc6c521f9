"""Codecs: HTTP/1, HTTP/2, gRPC framing, and the sniffing of first bytes. Sans-I/O: no sockets, clocks, logging or
event loop here.
"""
