# Protocols whose methods are Python's.
from proxy.io.transport cimport Protocol, Transport


cdef class PyProtocol(Protocol):
    """For control traffic: forwards to Python methods."""
    cdef Transport transport


cdef class PyTransport:
    """What a PyProtocol sees of its transport."""
    cdef Transport transport
