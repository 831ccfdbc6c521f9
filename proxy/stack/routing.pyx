"""Where a server side asks what to do with a request, and where it is known as open."""
from libc.stdint cimport int64_t

from proxy.stack.exchange cimport Exchange


cdef class Refusal:
    """A status for the client, a cause for the metric, and whether the connection ends with it."""

    def __init__(self, int status, str error, bint close=False):
        self.status = status
        self.error = error
        self.close = close


cdef class Router:
    """One per connection; sees each request before it goes on."""

    cdef Refusal route(self, Exchange exchange):
        """None to let the request go on to `exchange.dispatcher`."""
        return None

    cdef void refused(self, int status, str error):
        """Told of every answer the proxy makes itself, for metric and log."""
        pass

    cdef void broken_off(self, int status, str error):
        """Told of a stream that is reset by its client's fault, for metric and log; status 0 before a response."""
        pass

    cdef void ended(self, str error):
        """Told why a connection ended that carried many requests; a clean end is "connection closed"."""
        pass


cdef class ConnectionSet:
    """Tracks what is open so that a drain can end it: idle connections at once, busy ones after their response. What is
    added has a method `drain()`. The times are `patience`'s, in seconds."""

    def __init__(self, double head_timeout, double body_timeout):
        self.connections = set()
        self.head_ns = <int64_t>(head_timeout * 1e9)
        self.body_ns = <int64_t>(body_timeout * 1e9)

    cdef void add(self, object connection):
        self.connections.add(connection)

    cdef void discard(self, object connection):
        self.connections.discard(connection)
        if self.is_draining and not self.connections and self.on_empty is not None:
            on_empty = self.on_empty
            self.on_empty = None
            on_empty()

    def drain(self, on_empty):
        """Begin to end every connection; `on_empty()` is called when the last is gone (at once if there is none)."""
        self.is_draining = True
        self.on_empty = on_empty
        for connection in list(self.connections):
            connection.drain()
        if not self.connections and self.on_empty is not None:
            self.on_empty = None
            on_empty()

    def __len__(self):
        return len(self.connections)
