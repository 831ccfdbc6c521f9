"""What counts as a failure. Pure: integers and field values in, a verdict out; it counts nothing itself.

The rules are Linkerd's: gRPC is told by the request's content-type, and then grpc-status alone decides; without gRPC
the HTTP status does.
"""
from libc.string cimport memcmp

# Codes that say that the server failed: unknown, deadline exceeded, permission denied, internal, unavailable, data
# loss. The others (not found, already exists, ...) are answers.
cdef unsigned int GRPC_FAILURES = 1 << 2 | 1 << 4 | 1 << 7 | 1 << 13 | 1 << 14 | 1 << 15

cdef enum:
    GRPC_LAST = 16      # the highest code that gRPC defines


cdef bint is_failure(int status, int grpc_status) noexcept nogil:
    """Whether a response that came whole is a failure. `grpc_status` is 0..16, NOT_GRPC or GRPC_UNSAID.

    A gRPC response without any grpc-status is a success, as in Linkerd, whatever its HTTP status.
    """
    if grpc_status == NOT_GRPC:
        return 500 <= status <= 599
    return grpc_status >= 0 and (GRPC_FAILURES >> grpc_status) & 1


cdef bint is_grpc(const char* content_type, Py_ssize_t size) noexcept nogil:
    """Whether a request with this content-type is classified as gRPC; gRPC-Web is too, for it begins alike."""
    return size >= 16 and memcmp(content_type, b"application/grpc", 16) == 0


cdef int parse_grpc_status(const char* value, Py_ssize_t size) noexcept nogil:
    """The code in a grpc-status field: 0..16, GRPC_UNSAID for what is no number; an undefined code is `unknown`."""
    cdef Py_ssize_t i
    cdef int code = 0
    if size < 1 or size > 5:
        return GRPC_UNSAID
    for i in range(size):
        if value[i] < 48 or value[i] > 57:
            return GRPC_UNSAID
        code = code * 10 + value[i] - 48
    if code > 65535:
        return GRPC_UNSAID
    return code if code <= GRPC_LAST else GRPC_UNKNOWN


cdef int grpc_code(int status) noexcept nogil:
    """What a gRPC client is told where another would get this HTTP status of the proxy itself (Linkerd's mapping)."""
    if status == 400 or status == 500:
        return 13
    if status == 403:
        return 7
    if status == 404:
        return 5
    if status == 429 or status == 431:
        return 8
    if status == 502 or status == 503:
        return 14
    if status == 504:
        return 4
    if status == 508:
        return 10
    return GRPC_UNKNOWN


def classified(int status, int grpc_status) -> bool:
    """`is_failure`, for Python."""
    return is_failure(status, grpc_status)


def grpc_status_of(bytes value) -> int:
    """`parse_grpc_status`, for Python."""
    return parse_grpc_status(value, len(value))


def grpc_request(bytes content_type) -> bool:
    """`is_grpc`, for Python."""
    return is_grpc(content_type, len(content_type))
