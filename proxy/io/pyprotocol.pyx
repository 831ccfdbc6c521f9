"""Connections for Python code: control streams, whose messages are few. Nothing on the path of a request comes
through here."""
from proxy.io.transport cimport Protocol, Transport


cdef class PyTransport:
    """The transport as Python code sees it."""

    def write(self, bytes data not None):
        self.transport.write(data, len(data))

    def close(self):
        self.transport.close()

    def abort(self):
        self.transport.abort()

    def shutdown_write(self):
        self.transport.shutdown_write()

    def pause_reading(self):
        self.transport.pause_reading()

    def resume_reading(self):
        self.transport.resume_reading()

    @property
    def is_congested(self):
        return self.transport.congested

    @property
    def peer_identity(self):
        return self.transport.peer_identity

    @property
    def alpn(self):
        return self.transport.alpn

    @property
    def peer_address(self):
        return self.transport.peer_address

    def __repr__(self):
        return repr(self.transport)


cdef class PyProtocol(Protocol):
    """Base class for protocols written in Python: override the `on_` methods.

    on_connected(transport: PyTransport); on_data(data: bytes); on_eof(); on_writable(); on_closed(reason: Exception)
    """

    cdef void connected(self, Transport transport):
        cdef PyTransport view = PyTransport.__new__(PyTransport)
        view.transport = transport
        self.transport = transport
        self.on_connected(view)

    cdef void data_received(self, const char* data, Py_ssize_t size):
        self.on_data(data[:size])

    cdef void eof_received(self):
        self.on_eof()

    cdef void writable(self):
        self.on_writable()

    cdef void closed(self, object reason):
        self.transport = None
        self.on_closed(reason)

    cdef void crashed(self):
        self.transport = None
        self.on_closed(ConnectionAbortedError("internal error"))

    def on_connected(self, transport):
        pass

    def on_data(self, data):
        pass

    def on_eof(self):
        pass

    def on_writable(self):
        pass

    def on_closed(self, reason):
        pass
