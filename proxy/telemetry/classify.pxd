# What counts as a failure (Linkerd's classification), decided on integers.
cdef enum:
    NOT_GRPC = -1       # the request's content-type is not gRPC: only the HTTP status counts
    GRPC_UNSAID = -2    # a gRPC response whose headers and trailers had no grpc-status (yet)
    GRPC_UNKNOWN = 2

cdef bint is_failure(int status, int grpc_status) noexcept nogil
cdef bint is_grpc(const char* content_type, Py_ssize_t size) noexcept nogil
cdef int parse_grpc_status(const char* value, Py_ssize_t size) noexcept nogil
cdef int grpc_code(int status) noexcept nogil
