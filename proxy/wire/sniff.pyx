"""What the first bytes of a connection are. Pure: looks at bytes that are still in the socket.

A decision is made as soon as the grammar allows it, and no sooner. It is a function of the bytes alone, never of how
they were cut into segments: a beginning that can still become a request line or a ClientHello is UNDECIDED, and the
caller waits for more or for its timeout. Linkerd takes a first segment of 14 bytes that could be HTTP for HTTP, and a
shorter one for something else; here the `HTTP/1.` of the request line decides, so that `HELO a.b.example` is no
request even where it comes without its line end.
"""
from libc.string cimport memcpy

cdef enum:
    RECORD_HEADER = 5
    HANDSHAKE_RECORD = 22
    CLIENT_HELLO = 1
    MAX_RECORD = 16384
    MAX_HELLO = 16384        # of handshake bytes looked at; a ClientHello with every post-quantum key share has 4,000
    HTTP2_PREFIX = 14        # `PRI * HTTP/2.0`
    MAX_METHOD = 32
    MAX_LINE = 8192          # a request line is waited for as long as it is shorter than this

# A ClientHello that is spread over several records, put together. Nothing in it outlives the call but the name that it
# gives back, which its caller takes at once.
cdef unsigned char JOINED[MAX_HELLO]

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
    if size > RECORD_HEADER and data[RECORD_HEADER] != CLIENT_HELLO:
        return IS_OPAQUE
    if size < RECORD_HEADER:
        return UNDECIDED
    record = data[3] << 8 | data[4]
    if record == 0 or record > MAX_RECORD:
        return IS_OPAQUE
    if size < RECORD_HEADER + record:
        return UNDECIDED
    data += RECORD_HEADER
    end = record
    if record < 4 or 4 + (data[1] << 16 | data[2] << 8 | data[3]) > record:
        end = join_records(data - RECORD_HEADER, size)
        if end == 0:
            return UNDECIDED
        if end < 0:
            return IS_TLS  # larger than anybody's, or not one message: nothing here can end it
        data = JOINED
    length = data[1] << 16 | data[2] << 8 | data[3]
    if 4 + length < end:
        end = 4 + length
    at = 4 + 2 + 32                           # legacy_version, random
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


cdef Py_ssize_t join_records(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """Gather one handshake message out of its records (RFC 8446 section 5.1) into JOINED. Its size, 0 as long as there
    is more to come, -1 if it is none that can be read."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t gathered = 0
    cdef Py_ssize_t record
    while True:
        if at + RECORD_HEADER > size:
            return 0
        record = data[at + 3] << 8 | data[at + 4]
        if data[at] != HANDSHAKE_RECORD or record == 0 or gathered + record > MAX_HELLO:
            return -1
        if at + RECORD_HEADER + record > size:
            return 0
        memcpy(JOINED + gathered, data + at + RECORD_HEADER, record)
        gathered += record
        at += RECORD_HEADER + record
        if gathered >= 4 and gathered >= 4 + (JOINED[1] << 16 | JOINED[2] << 8 | JOINED[3]):
            return gathered


cdef bint is_token_char(unsigned char c) noexcept nogil:
    return (
        (c >= 65 and c <= 90) or (c >= 97 and c <= 122) or (c >= 48 and c <= 57) or c == 33 or (c >= 35 and c <= 39)
        or c == 42 or c == 43 or c == 45 or c == 46 or c == 94 or c == 95 or c == 96 or c == 124 or c == 126
    )


cdef Verdict sniff_http(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """IS_HTTP1, IS_HTTP2, IS_OPAQUE or UNDECIDED. RFC 9112 section 3, RFC 9113 section 3.4.

    A request line that is longer than MAX_LINE is HTTP/1 all the same: the codec says what is wrong with it. Nothing
    is waited for beyond that.
    """
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start
    cdef bint is_whole = size >= MAX_LINE
    cdef int i
    size = min(size, MAX_LINE)
    while at < size and at < HTTP2_PREFIX and data[at] == H2_PREFACE[at]:
        at += 1
    if at == HTTP2_PREFIX:
        return IS_HTTP2
    if at == size:
        return UNDECIDED
    at = 0
    while at + 1 < size and data[at] == 13 and data[at + 1] == 10:
        at += 2
    if at + 1 >= size and (at == size or data[at] == 13):
        return IS_OPAQUE if is_whole else UNDECIDED
    start = at
    while at < size and is_token_char(data[at]):
        at += 1
    if at - start > MAX_METHOD:
        return IS_OPAQUE
    if at == size:
        return IS_OPAQUE if is_whole else UNDECIDED
    if at == start or data[at] != 32:
        return IS_OPAQUE
    at += 1
    start = at
    while at < size and data[at] > 32 and data[at] != 127:
        at += 1
    if at == size:
        return IS_HTTP1 if is_whole else UNDECIDED
    if at == start or data[at] != 32:
        return IS_OPAQUE
    at += 1
    for i in range(7):
        if at == size:
            return IS_HTTP1 if is_whole else UNDECIDED
        if data[at] != (<const unsigned char*>b"HTTP/1.")[i]:
            return IS_OPAQUE
        at += 1
    return IS_HTTP1
