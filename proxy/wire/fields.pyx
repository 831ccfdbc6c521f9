"""Fields of HTTP/1 messages: which characters they may have, which of them this proxy treats apart. Pure, no
allocation."""
from libc.string cimport memchr

# TOKEN: RFC 9110 section 5.6.2. VALUE: field-vchar, SP and HTAB, section 5.5. TARGET: visible ASCII, and UTF-8 bytes,
# which are seen in the wild and forwarded untouched.
for _i in range(256):
    _c = chr(_i)
    TOKEN[_i] = _c.isascii() and (_c.isalnum() or _c in "!#$%&'*+-.^_`|~")
    VALUE[_i] = _i in (9, 32) or 33 <= _i <= 126 or _i >= 128
    TARGET[_i] = 33 <= _i <= 126 or _i >= 128
    HEX[_i] = int(_c, 16) if _c.isascii() and _c in "0123456789abcdefABCDEF" else -1


cdef bint equals_ignoring_case(const char* a, Py_ssize_t size, const char* lower) noexcept nogil:
    """True if `a` is `lower` (which must be lower case) of exactly `size` bytes."""
    cdef Py_ssize_t i
    cdef char c
    for i in range(size):
        c = a[i]
        if c >= 65 and c <= 90:
            c += 32
        if c != lower[i]:
            return False
    return lower[size] == 0


cdef bint is_token(const char* data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    if size <= 0:
        return False
    for i in range(size):
        if not TOKEN[<unsigned char>data[i]]:
            return False
    return True


cdef FieldKind classify(const char* name, int size) noexcept nogil:
    cdef char first = name[0] | 32
    if first == 104:
        if size == 4 and equals_ignoring_case(name, size, b"host"):
            return FIELD_HOST
        if size == 14 and equals_ignoring_case(name, size, b"http2-settings"):
            return FIELD_HOP_BY_HOP
    if first == 99:
        if size == 14 and equals_ignoring_case(name, size, b"content-length"):
            return FIELD_CONTENT_LENGTH
        if size == 10 and equals_ignoring_case(name, size, b"connection"):
            return FIELD_CONNECTION
    elif first == 116:
        if size == 17 and equals_ignoring_case(name, size, b"transfer-encoding"):
            return FIELD_TRANSFER_ENCODING
    elif first == 107:
        if size == 10 and equals_ignoring_case(name, size, b"keep-alive"):
            return FIELD_HOP_BY_HOP
    elif first == 112:
        if size == 16 and equals_ignoring_case(name, size, b"proxy-connection"):
            return FIELD_HOP_BY_HOP
    elif first == 117:
        if size == 7 and equals_ignoring_case(name, size, b"upgrade"):
            return FIELD_UPGRADE
    elif first == 101:
        if size == 6 and equals_ignoring_case(name, size, b"expect"):
            return FIELD_EXPECT
    elif first == 108 and size > 4 and equals_prefix(name, b"l5d-"):
        if size == 13 and equals_ignoring_case(name, size, b"l5d-client-id"):
            return FIELD_L5D_CLIENT_ID
        if size == 14 and equals_ignoring_case(name, size, b"l5d-require-id"):
            return FIELD_L5D_REQUIRE_ID
        if size == 15 and equals_ignoring_case(name, size, b"l5d-proxy-error"):
            return FIELD_L5D_PROXY_ERROR
        if size == 20 and equals_ignoring_case(name, size, b"l5d-proxy-connection"):
            return FIELD_L5D_PROXY_CONNECTION
        if equals_ignoring_case(name, size, b"l5d-dst-canonical") or \
                equals_ignoring_case(name, size, b"l5d-dst-override") or \
                equals_ignoring_case(name, size, b"l5d-orig-proto"):
            return FIELD_L5D_OTHER
    return FIELD_OTHER


cdef bint equals_prefix(const char* name, const char* lower) noexcept nogil:
    cdef int i
    for i in range(4):
        if (name[i] | 32) != (lower[i] | 32):
            return False
    return True


cdef int decimal(const char* text, int size) noexcept nogil:
    """A whole number of up to nine digits, 0 for anything else."""
    cdef int i
    cdef int found = 0
    if size < 1 or size > 9:
        return 0
    for i in range(size):
        if text[i] < 48 or text[i] > 57:
            return 0
        found = found * 10 + text[i] - 48
    return found


cdef const char* next_list_item(const char** at, const char* end, int* size) noexcept nogil:
    """Walk a comma-separated list (RFC 9110 section 5.6.1), trimming white space; NULL at its end."""
    cdef const char* start
    cdef const char* stop
    while at[0] < end and (at[0][0] == 44 or at[0][0] == 32 or at[0][0] == 9):
        at[0] += 1
    if at[0] >= end:
        return NULL
    start = at[0]
    stop = <const char*>memchr(start, 44, end - start)
    if stop == NULL:
        stop = end
    at[0] = stop
    while stop > start and (stop[-1] == 32 or stop[-1] == 9):
        stop -= 1
    size[0] = <int>(stop - start)
    return start


cdef bint same_name(const char* a, const char* b, int size) noexcept nogil:
    cdef int i
    cdef char x, y
    for i in range(size):
        x = a[i]
        y = b[i]
        if x >= 65 and x <= 90:
            x += 32
        if y >= 65 and y <= 90:
            y += 32
        if x != y:
            return False
    return True
