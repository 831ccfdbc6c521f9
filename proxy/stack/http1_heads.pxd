# Heads of HTTP/1 messages for the next hop, written anew from `http1.head`, the one that was parsed last.
from proxy.stack.buffer cimport Buffer
from proxy.wire cimport fields, http1


cdef inline bint idempotent():
    """RFC 9110 section 9.2.2, for the methods whose bodies are rare."""
    if http1.head.method == http1.METHOD_GET or http1.head.method == http1.METHOD_HEAD or \
            http1.head.method == http1.METHOD_OPTIONS:
        return True
    return fields.equals_ignoring_case(http1.head.method_text, http1.head.method_size, b"put") or \
        fields.equals_ignoring_case(http1.head.method_text, http1.head.method_size, b"delete")


cdef inline bint is_authority(const char* text, int size):
    """RFC 9112 section 3.2.3: host, colon, port."""
    cdef int at = size - 1
    while at >= 0 and text[at] >= 48 and text[at] <= 57:
        at -= 1
    return 0 < at < size - 1 and text[at] == 58


cdef inline void absolute_authority(const char** authority, Py_ssize_t* size):
    """The authority of an absolute-form target (RFC 9112 section 3.2.2), or NULL."""
    cdef int at = 0
    cdef int start
    if http1.head.method == http1.METHOD_CONNECT or http1.head.target[0] == 47:
        return
    if http1.head.target_size > 7 and fields.equals_ignoring_case(http1.head.target, 7, b"http://"):
        at = 7
    elif http1.head.target_size > 8 and fields.equals_ignoring_case(http1.head.target, 8, b"https://"):
        at = 8
    else:
        return
    start = at
    while at < http1.head.target_size and http1.head.target[at] != 47 and http1.head.target[at] != 63:
        if http1.head.target[at] == 64:
            start = at + 1
        at += 1
    authority[0] = http1.head.target + start
    size[0] = at - start


cdef inline void write_fields(Buffer into, bint skip_host, bint strip_client_id, bint trailers):
    """The end-to-end fields of http1.head; framing and connection management are written by the caller."""
    cdef int i
    cdef fields.Field* field
    for i in range(http1.head.field_count):
        field = &http1.head.fields[i]
        if field.kind != fields.FIELD_OTHER:
            if trailers or not (
                field.kind == fields.FIELD_EXPECT
                or (field.kind == fields.FIELD_HOST and not skip_host)
                or (field.kind == fields.FIELD_L5D_CLIENT_ID and not strip_client_id)
            ):
                continue
        into.put(field.name, field.name_size)
        into.put(b": ", 2)
        into.put(field.value, field.value_size)
        into.put(b"\r\n", 2)


cdef inline void write_upgrade(Buffer into):
    cdef int i
    cdef fields.Field* field
    for i in range(http1.head.field_count):
        field = &http1.head.fields[i]
        if field.kind == fields.FIELD_UPGRADE:
            into.put(b"upgrade: ", 9)
            into.put(field.value, field.value_size)
            into.put(b"\r\n", 2)


cdef inline void write_request_head(Buffer into, bytes client_id, bint strips_client_id):
    """RFC 9112 section 3 and RFC 9110 section 7.6: what the next hop is sent."""
    cdef const char* authority = NULL
    cdef Py_ssize_t authority_size = 0
    into.put(http1.head.method_text, http1.head.method_size)
    into.put(b" ", 1)
    into.put(http1.head.target, http1.head.target_size)
    into.put(b" HTTP/1.1\r\n" if http1.head.minor_version else b" HTTP/1.0\r\n", 11)
    # RFC 9112 section 3.2.2: with an absolute-form target the Host field received is replaced by the target's
    # authority.
    absolute_authority(&authority, &authority_size)
    if authority != NULL:
        into.put(b"host: ", 6)
        into.put(authority, authority_size)
        into.put(b"\r\n", 2)
    write_fields(into, authority != NULL, strips_client_id, False)
    if len(client_id):
        into.put(b"l5d-client-id: ", 15)
        into.put_bytes(client_id)
        into.put(b"\r\n", 2)
    if http1.head.framing == http1.FRAMING_CHUNKED:
        into.put(b"transfer-encoding: chunked\r\n", 28)
    elif http1.head.framing == http1.FRAMING_LENGTH:
        into.put(b"content-length: ", 16)
        into.put_number(http1.head.content_length, 10)
        into.put(b"\r\n", 2)
    if http1.head.upgrade:
        into.put(b"connection: upgrade\r\n", 21)
        write_upgrade(into)
    elif http1.head.minor_version == 0:
        into.put(b"connection: close\r\n", 19)
    into.put(b"\r\n", 2)
