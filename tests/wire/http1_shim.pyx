# cython: language_level=3
"""Lets Python hand bytes to the HTTP/1 codec and to detection, which only compiled code can call.

Built by tests/wire/shim.py.
"""
from proxy.wire cimport http1, sniff
from proxy.wire.fields cimport Field
from proxy.wire.http1 cimport MessageReader


cdef list fields_of_head():
    cdef int i
    cdef Field* field
    found = []
    for i in range(http1.head.field_count):
        field = &http1.head.fields[i]
        found.append((field.name[:field.name_size], field.value[:field.value_size]))
    return found


cdef tuple head_of(bint is_request):
    if is_request:
        first = (
            http1.head.method_text[:http1.head.method_size], http1.head.target[:http1.head.target_size]
        )
    else:
        first = (http1.head.status, http1.head.reason[:http1.head.reason_size])
    return ("head", first, http1.head.minor_version, fields_of_head())


def read(bint is_request, list pieces, bint eof=True, bytes method=b"GET"):
    """Every event of these bytes, arriving in these pieces; the body's data joined. Messages follow each other."""
    cdef MessageReader reader = MessageReader(is_request)
    cdef const char* cursor
    cdef const char* end
    cdef const char* data
    cdef Py_ssize_t size = 0
    cdef http1.Event event = http1.NEED_DATA
    cdef bytes piece
    reader.request_method = (
        http1.METHOD_HEAD if method == b"HEAD" else http1.METHOD_CONNECT if method == b"CONNECT" else http1.METHOD_GET
    )
    events = []
    body = b""
    for piece in pieces:
        cursor = piece
        end = cursor + len(piece)
        while True:
            event = reader.next_event(&cursor, end, &data, &size)
            if event == http1.NEED_DATA:
                if cursor != end:
                    raise AssertionError(f"{end - cursor} bytes were left")
                break
            if event == http1.EVENT_DATA:
                if size <= 0:
                    raise AssertionError("an empty piece of a body")
                body += data[:size]
                continue
            if event == http1.EVENT_ERROR:
                events.append(("error", reader.error_status, reader.error))
                return events
            if event == http1.EVENT_HEAD:
                events.append(head_of(is_request))
            elif event == http1.EVENT_TRAILERS:
                events.append(("data", body))
                body = b""
                events.append(("trailers", fields_of_head()))
            elif event == http1.EVENT_END:
                if body:
                    events.append(("data", body))
                    body = b""
                events.append(("end",))
                reader.restart()
                if cursor == end:
                    break
    if eof:
        event = reader.end_of_input()
        if event == http1.EVENT_END:
            if body:
                events.append(("data", body))
            events.append(("end",))
        elif event == http1.EVENT_ERROR:
            events.append(("error", reader.error_status, reader.error))
    return events


VERDICTS = {sniff.UNDECIDED: "undecided", sniff.IS_OPAQUE: "opaque", sniff.IS_HTTP1: "http1", sniff.IS_HTTP2: "http2",
            sniff.IS_TLS: "tls"}


def sniff_http(bytes data):
    """What plaintext begins like."""
    return VERDICTS[sniff.sniff_http(<const unsigned char*>data, len(data))]


def sniff_tls(bytes data):
    """Whether this is a ClientHello, and for whom."""
    cdef sniff.Hello hello
    verdict = VERDICTS[sniff.sniff_tls(<const unsigned char*>data, len(data), &hello)]
    return verdict, hello.server_name[:hello.server_name_size] if hello.server_name_size else b""
