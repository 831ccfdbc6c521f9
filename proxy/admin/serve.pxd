# The admin port on the data plane's own HTTP/1 server.
from proxy.inbound.accept cimport Inbound, InboundConnection
from proxy.stack.exchange cimport Dispatcher, Exchange
from proxy.stack.routing cimport Router


cdef class AdminInbound(Inbound):
    cdef readonly object admin


cdef class AdminDispatcher(Dispatcher):
    pass


cdef class AdminRouter(Router):
    cdef object admin, peer, method, target, fields
