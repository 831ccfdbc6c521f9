# What the first bytes of a connection are. Pure; nothing is consumed.
cdef enum Verdict:
    UNDECIDED   # a valid beginning; more bytes are needed
    IS_TLS      # a ClientHello; `server_name` is set if it has one
    IS_HTTP1
    IS_HTTP2
    IS_OPAQUE

cdef struct Hello:
    const char* server_name
    int server_name_size

cdef Verdict sniff_tls(const unsigned char* data, Py_ssize_t size, Hello* hello) noexcept nogil
cdef Verdict sniff_http(const unsigned char* data, Py_ssize_t size) noexcept nogil
