"""What the first bytes of a connection are. Pure: looks at bytes that are still in the socket.

A decision is made as soon as the grammar allows it. Unlike Linkerd's, it does not depend on how the bytes were cut
into segments: a beginning that can still become a request line or a ClientHello is UNDECIDED, and the caller waits
for more or for its timeout.
"""

cdef enum:
    RECORD_HEADER = 5
    HANDSHAKE_RECORD = 22
    CLIENT_HELLO = 1
    MAX_RECORD = 16384
    MIN_HTTP = 14            # Linkerd calls a valid prefix of this length HTTP; so do we
    MAX_METHOD = 32

cdef const unsigned char* H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


cdef Verdict sniff_tls(const unsigned char* data, Py_ssize_t size, Hello* hello) noexcept nogil:
    """IS_TLS, IS_OPAQUE (anything that is not a ClientHello) or UNDECIDED. RFC 8446 sections 4.1.2 and 5.1."""
    cdef Py_ssize_t record, end, at, length, extensions_end, kind
    hello.server_name = NULL
    hello.server_name_size = 0
    if size == 0:
        return UNDECIDED
    if data[0] != HANDSHAKE_RECORD or (size > 1 and data[1] != 3) or (size > 2 and data[2] > 4):
        return IS_OPAQUE
    if size > RECORD_HEADER and data[5] != CLIENT_HELLO:
        return IS_OPAQUE
    if size < RECORD_HEADER + 4:
        return UNDECIDED
    record = data[3] << 8 | data[4]
    if record < 4 or record > MAX_RECORD:
        return IS_OPAQUE
    if size < RECORD_HEADER + record:
        return UNDECIDED
    end = RECORD_HEADER + record
    length = data[6] << 16 | data[7] << 8 | data[8]
    if RECORD_HEADER + 4 + length > end:
        return IS_TLS  # a ClientHello over several records: no name can be read, so it is passed through
    end = RECORD_HEADER + 4 + length
    at = RECORD_HEADER + 4 + 2 + 32           # legacy_version, random
    if at + 1 > end:
        return IS_TLS
    at += 1 + data[at]                        # legacy_session_id
    if at + 2 > end:
        return IS_TLS
    at += 2 + (data[at] << 8 | data[at + 1])  # cipher_suites
    if at + 1 > end:
        return IS_TLS
    at += 1 + data[at]                        # legacy_compression_methods
    if at + 2 > end:
        return IS_TLS
    extensions_end = at + 2 + (data[at] << 8 | data[at + 1])
    at += 2
    if extensions_end > end:
        return IS_TLS
    while at + 4 <= extensions_end:
        kind = data[at] << 8 | data[at + 1]
        length = data[at + 2] << 8 | data[at + 3]
        at += 4
        if at + length > extensions_end:
            return IS_TLS
        if kind == 0 and length >= 5 and data[at + 2] == 0:  # server_name, RFC 6066 section 3: host_name
            length = data[at + 3] << 8 | data[at + 4]
            if at + 5 + length <= extensions_end:
                hello.server_name = <const char*>data + at + 5
                hello.server_name_size = <int>length
            return IS_TLS
        at += length
    return IS_TLS


cdef bint is_token_char(unsigned char c) noexcept nogil:
    return (
        (c >= 65 and c <= 90) or (c >= 97 and c <= 122) or (c >= 48 and c <= 57) or c == 33 or (c >= 35 and c <= 39)
        or c == 42 or c == 43 or c == 45 or c == 46 or c == 94 or c == 95 or c == 96 or c == 124 or c == 126
    )


cdef Verdict sniff_http(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """IS_HTTP1, IS_HTTP2, IS_OPAQUE or UNDECIDED. RFC 9112 section 3, RFC 9113 section 3.4."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start
    cdef int i
    while at < size and at < MIN_HTTP and data[at] == H2_PREFACE[at]:
        at += 1
    if at == MIN_HTTP:
        return IS_HTTP2
    if at == size:
        return UNDECIDED
    at = 0
    while at + 1 < size and data[at] == 13 and data[at + 1] == 10:
        at += 2
    if at + 1 == size and data[at] == 13:
        return UNDECIDED
    start = at
    while at < size and is_token_char(data[at]):
        at += 1
    if at - start > MAX_METHOD:
        return IS_OPAQUE
    if at == size:
        return UNDECIDED
    if at == start or data[at] != 32:
        return IS_OPAQUE
    at += 1
    start = at
    while at < size and data[at] > 32 and data[at] != 127:
        at += 1
    if at == size:
        return IS_HTTP1 if size >= MIN_HTTP else UNDECIDED
    if at == start or data[at] != 32:
        return IS_OPAQUE
    at += 1
    for i in range(7):
        if at == size:
            return IS_HTTP1 if size >= MIN_HTTP else UNDECIDED
        if data[at] != (<const unsigned char*>b"HTTP/1.")[i]:
            return IS_OPAQUE
        at += 1
    return IS_HTTP1
