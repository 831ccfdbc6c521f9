# HTTP/1 fields: their classes of characters, and those with a meaning to the proxy.
cdef enum FieldKind:
    FIELD_OTHER
    FIELD_HOST
    FIELD_CONTENT_LENGTH
    FIELD_TRANSFER_ENCODING
    FIELD_CONNECTION
    FIELD_HOP_BY_HOP          # Keep-Alive, Proxy-Connection, HTTP2-Settings, and whatever Connection names
    FIELD_UPGRADE
    FIELD_EXPECT
    FIELD_TRAILER_FORBIDDEN
    FIELD_L5D_CLIENT_ID
    FIELD_L5D_REQUIRE_ID
    FIELD_L5D_PROXY_ERROR
    FIELD_L5D_PROXY_CONNECTION
    FIELD_L5D_OTHER           # l5d-dst-canonical, l5d-dst-override, l5d-orig-proto: never taken from outside

cdef struct Field:
    const char* name
    int name_size
    const char* value
    int value_size
    FieldKind kind

cdef unsigned char[256] TOKEN
cdef unsigned char[256] VALUE
cdef unsigned char[256] TARGET
cdef signed char[256] HEX      # value of a hexadecimal digit, -1 for anything else

cdef bint equals_ignoring_case(const char* a, Py_ssize_t size, const char* lower) noexcept nogil
cdef bint is_token(const char* data, Py_ssize_t size) noexcept nogil
cdef bint same_name(const char* a, const char* b, int size) noexcept nogil
cdef FieldKind classify(const char* name, int size) noexcept nogil
cdef int decimal(const char* text, int size) noexcept nogil
cdef const char* next_list_item(const char** at, const char* end, int* size) noexcept nogil
