# What the requests of one inbound connection are counted as, by the route that let them in.
from proxy.stack.exchange cimport Exchange
from proxy.telemetry.counters cimport EventSeries, RequestSeries
from proxy.telemetry.streams cimport StreamSeries


cdef class RouteCounts:
    cdef object registry
    cdef tuple requests_labels, streams_labels, allowed_labels
    cdef RequestSeries requests
    cdef StreamSeries http, grpc
    cdef EventSeries allowed
    cdef void count(self, Exchange exchange)
