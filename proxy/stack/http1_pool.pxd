# Connections that speak HTTP/1: one exchange at a time, kept for the next.
from proxy.io.reactor cimport Timer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.http1_client cimport ConnectionObserver, HTTP1Client
from proxy.stack.pool cimport Pool


cdef class PoolObserver(ConnectionObserver):
    cdef HTTP1Pool pool


cdef class IdleTimer(Timer):
    cdef HTTP1Pool pool


cdef class HTTP1Pool(Pool):
    cdef PoolObserver observer
    cdef IdleTimer idle_timer
    cdef int idle
    cdef void start_dials(self, Endpoint endpoint)
    cdef void dial_failed(self, Endpoint endpoint, object reason)
    cdef void take_back(self, HTTP1Client client)
    cdef void remove(self, HTTP1Client client)
    cdef void reap(self)
