# Connections that speak HTTP/2: many exchanges on each.
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.http2_client cimport HTTP2Client, SessionObserver
from proxy.stack.pool cimport Pool


cdef class PoolObserver(SessionObserver):
    cdef HTTP2Pool pool


cdef class HTTP2Pool(Pool):
    cdef PoolObserver observer
    cdef int sessions
    cdef void start_dial(self, Endpoint endpoint)
    cdef void serve_waiters(self, HTTP2Client client)
