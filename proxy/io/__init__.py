"""The only sockets of the data plane: listening, original destinations, connecting, relaying, and the reactor that
drives them.

Belongs here: system calls and the buffers between them. Does not: what the bytes mean (`proxy.wire`), whom to call
(`proxy.outbound`).
"""
