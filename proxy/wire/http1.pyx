"""HTTP/1.x messages, strictly by RFC 9112. Sans-I/O and without policy: bytes in, events out.

Whatever two parsers could read differently is an error here, because the bytes come from one peer and go on to
another (request smuggling, RFC 9112 section 11.2): a bare LF or CR, folded lines, white space before a colon, more
than one Content-Length, Content-Length beside Transfer-Encoding, any transfer coding but `chunked`, chunk sizes that
are not plain hexadecimal.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from proxy.wire.fields cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_HOP_BY_HOP, FIELD_HOST, FIELD_OTHER,
    FIELD_TRAILER_FORBIDDEN, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, HEX, TARGET, TOKEN, VALUE, Field, FieldKind,
    classify, equals_ignoring_case, is_token, next_list_item, same_name,
)

cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t haystack_size, const void* needle, size_t needle_size)

cdef enum:
    MAX_LENGTH_DIGITS = 18  # more cannot be counted in 63 bits without care, and no body is that long

cdef enum ReaderState:
    HEAD
    BODY_LENGTH
    BODY_CHUNK_SIZE
    BODY_CHUNK_EXTENSION
    BODY_CHUNK_SIZE_LF
    BODY_CHUNK_DATA
    BODY_CHUNK_END_CR
    BODY_CHUNK_END_LF
    BODY_UNTIL_CLOSE
    TRAILERS
    DONE
    FAILED

cdef class MessageReader:
    """Reads the messages of one direction of one connection, one after the other."""

    def __cinit__(self, bint is_request):
        self.is_request = is_request

    def __dealloc__(self):
        if self.held != NULL:
            free(self.held)

    cdef void restart(self):
        """Ready for the next message; anything already handed in after the last one is the caller's to hand in
        again."""
        self.state = HEAD
        self.held_size = 0
        self.scanned = 0
        self.held_used = False
        if self.held_capacity > 4096:
            free(self.held)
            self.held = NULL
            self.held_capacity = 0

    cdef bint is_idle(self):
        """Between messages, with no byte of the next one seen."""
        return self.state == HEAD and self.held_size == 0

    cdef bint is_in_head(self):
        """A head has begun and is not whole."""
        return self.state == HEAD and self.held_size > 0

    cdef bint body_is_read(self):
        """The message in hand has no byte outstanding."""
        return self.state == DONE

    cdef Event fail(self, int status, str error):
        self.state = FAILED
        self.error = error
        self.error_status = status
        return EVENT_ERROR

    cdef Event end_of_input(self):
        """The peer will send no more. EVENT_END if that is a proper end of the message, EVENT_ERROR if it cuts one
        short."""
        if self.state == BODY_UNTIL_CLOSE:
            self.state = DONE
            return EVENT_END
        if self.state == DONE or self.is_idle():
            return NEED_DATA
        return self.fail(400 if self.is_request else 502, "connection closed in the middle of a message")

    cdef Event next_event(self, const char** cursor, const char* end, const char** data, Py_ssize_t* size):
        """Consume input from `cursor` up to `end` and say what it was. `data`, `size` are set for EVENT_DATA."""
        cdef Py_ssize_t available
        while True:
            available = end - cursor[0]
            if self.state == BODY_LENGTH:
                if self.remaining == 0:
                    self.state = DONE
                    return EVENT_END
                if available == 0:
                    return NEED_DATA
                data[0] = cursor[0]
                size[0] = available if available < self.remaining else <Py_ssize_t>self.remaining
                cursor[0] += size[0]
                self.remaining -= size[0]
                return EVENT_DATA
            if self.state == DONE:
                return EVENT_END
            if self.state == FAILED:
                return EVENT_ERROR
            if self.state == TRAILERS:
                return self.read_trailers(cursor, end)
            if available == 0:
                return NEED_DATA
            if self.state == HEAD:
                return self.read_head(cursor, end)
            if self.state == BODY_UNTIL_CLOSE:
                data[0] = cursor[0]
                size[0] = available
                cursor[0] = end
                return EVENT_DATA
            if self.state == BODY_CHUNK_DATA:
                data[0] = cursor[0]
                size[0] = available if available < self.chunk_size else <Py_ssize_t>self.chunk_size
                cursor[0] += size[0]
                self.chunk_size -= size[0]
                if self.chunk_size == 0:
                    self.state = BODY_CHUNK_END_CR
                return EVENT_DATA
            if self.state == BODY_CHUNK_END_CR:
                if cursor[0][0] != 13:
                    return self.fail(400 if self.is_request else 502, "chunk data does not end in CRLF")
                cursor[0] += 1
                self.state = BODY_CHUNK_END_LF
            elif self.state == BODY_CHUNK_END_LF:
                if cursor[0][0] != 10:
                    return self.fail(400 if self.is_request else 502, "chunk data does not end in CRLF")
                cursor[0] += 1
                self.state = BODY_CHUNK_SIZE
                self.chunk_size = 0
                self.chunk_digits = 0
                self.chunk_line = 0
            elif self.read_chunk_size(cursor, end) == EVENT_ERROR:
                return EVENT_ERROR

    # Heads

    cdef int hold(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity = self.held_capacity if self.held_capacity else 1024
        cdef char* grown
        while capacity < self.held_size + size:
            capacity *= 2
        if capacity != self.held_capacity:
            grown = <char*>realloc(self.held, capacity)
            if grown == NULL:
                raise MemoryError
            self.held = grown
            self.held_capacity = capacity
        memcpy(self.held + self.held_size, data, size)
        self.held_size += size
        return 0

    cdef Event read_head(self, const char** cursor, const char* end):
        cdef const char* start = cursor[0]
        cdef const char* stop
        cdef const char* at
        cdef Py_ssize_t back, taken
        cdef Py_ssize_t empty = 0
        if self.held_size == 0:
            # RFC 9112 section 2.2: an empty line before a request line is ignored.
            while self.is_request and end - start >= 2 and start[0] == 13 and start[1] == 10:
                start += 2
            cursor[0] = start
            if start == end:
                return NEED_DATA
            stop = <const char*>memmem(start, end - start, b"\r\n\r\n", 4)
            if stop != NULL:
                if stop + 4 - start > MAX_HEAD:
                    return self.fail(431, "head too large")
                cursor[0] = stop + 4
                return self.parse_head(start, stop + 2)
            self.hold(start, end - start)
            cursor[0] = end
        else:
            taken = end - start
            if taken > MAX_HEAD + 4 - self.held_size:
                taken = MAX_HEAD + 4 - self.held_size
            back = self.held_size
            self.hold(start, taken)
            while self.is_request and self.held_size - empty >= 2 and self.held[empty] == 13 and \
                    self.held[empty + 1] == 10:
                empty += 2
            if empty > 0:
                memmove(self.held, self.held + empty, self.held_size - empty)
                self.held_size -= empty
                self.scanned = 0
                back -= empty
            at = self.held + (self.scanned - 3 if self.scanned > 3 else 0)
            stop = <const char*>memmem(at, self.held + self.held_size - at, b"\r\n\r\n", 4)
            if stop != NULL:
                cursor[0] = start + (stop + 4 - self.held - back)
                self.held_size = stop + 4 - self.held
                if self.held_size > MAX_HEAD:
                    return self.fail(431 if self.is_request else 502, "head too large")
                return self.parse_head(self.held, stop + 2)
            cursor[0] = start + taken
        # No end yet: refuse what can never become a good head, so that a peer that ends lines with LF is not left
        # waiting.
        at = self.held + self.scanned
        while True:
            at = <const char*>memchr(at, 10, self.held + self.held_size - at)
            if at == NULL:
                break
            if at == self.held or at[-1] != 13:
                return self.fail(400 if self.is_request else 502, "bare LF")
            at += 1
        self.scanned = self.held_size
        if self.held_size >= MAX_HEAD:
            return self.fail(431 if self.is_request else 502, "head too large")
        if cursor[0] < end:  # empty lines that were passed over have left room
            return self.read_head(cursor, end)
        return NEED_DATA

    cdef Event parse_head(self, const char* data, const char* end):
        """`data` .. `end` is the start line and the fields, each ending in CRLF."""
        cdef const char* line_end = <const char*>memchr(data, 10, end - data)
        cdef Event event
        if line_end == NULL or line_end == data or line_end[-1] != 13:
            return self.fail(400 if self.is_request else 502, "bare LF")
        head.field_count = 0
        head.host = NULL
        head.host_size = 0
        head.content_length = -1
        head.framing = FRAMING_NONE
        head.upgrade = False
        head.expects_continue = False
        if self.is_request:
            event = self.parse_request_line(data, line_end - 1)
        else:
            event = self.parse_status_line(data, line_end - 1)
        if event == EVENT_ERROR:
            return event
        head.wants_close = head.minor_version == 0
        event = self.parse_fields(line_end + 1, end)
        if event == EVENT_ERROR:
            return event
        self.held_size = 0
        self.scanned = 0
        return self.frame_request() if self.is_request else self.frame_response()

    cdef Event parse_request_line(self, const char* line, const char* end):
        cdef const char* space = <const char*>memchr(line, 32, end - line)
        cdef const char* at
        if space == NULL or not is_token(line, space - line) or space - line > MAX_METHOD:
            return self.fail(400, "malformed method")
        head.method_text = line
        head.method_size = <int>(space - line)
        head.method = METHOD_OTHER
        if head.method_size == 3 and memcmp(line, b"GET", 3) == 0:
            head.method = METHOD_GET
        elif head.method_size == 4 and memcmp(line, b"HEAD", 4) == 0:
            head.method = METHOD_HEAD
        elif head.method_size == 7 and memcmp(line, b"CONNECT", 7) == 0:
            head.method = METHOD_CONNECT
        elif head.method_size == 7 and memcmp(line, b"OPTIONS", 7) == 0:
            head.method = METHOD_OPTIONS
        if end - line < head.method_size + 11 or memcmp(end - 9, b" HTTP/1.", 8) != 0:
            return self.fail(400, "malformed request line")
        if end[-1] != 48 and end[-1] != 49:
            return self.fail(505, "HTTP version not supported")
        head.minor_version = end[-1] - 48
        head.target = space + 1
        head.target_size = <int>(end - 9 - (space + 1))
        if head.target_size < 1:
            return self.fail(400, "empty request target")
        at = head.target
        while at < end - 9:
            if not TARGET[<unsigned char>at[0]]:
                return self.fail(400, "malformed request target")
            at += 1
        return EVENT_HEAD

    cdef Event parse_status_line(self, const char* line, const char* end):
        cdef const char* at
        if end - line < 12 or memcmp(line, b"HTTP/1.", 7) != 0 or line[8] != 32 or (line[7] != 48 and line[7] != 49):
            return self.fail(502, "malformed status line")
        head.minor_version = line[7] - 48
        head.status = 0
        at = line + 9
        while at < line + 12:
            if at[0] < 48 or at[0] > 57:
                return self.fail(502, "malformed status code")
            head.status = head.status * 10 + (at[0] - 48)
            at += 1
        if head.status < 100 or (end > line + 12 and line[12] != 32):
            return self.fail(502, "malformed status code")
        head.reason = line + 13 if end > line + 12 else end
        head.reason_size = <int>(end - head.reason)
        at = head.reason
        while at < end:
            if not VALUE[<unsigned char>at[0]]:
                return self.fail(502, "malformed reason phrase")
            at += 1
        return EVENT_HEAD

    cdef Event parse_fields(self, const char* at, const char* end):
        cdef int bad = 400 if self.is_request else 502
        cdef const char* colon
        cdef const char* value
        cdef const char* stop
        cdef const char* scan
        cdef Field* field
        while at < end:
            if head.field_count == MAX_FIELDS:
                return self.fail(431 if self.is_request else 502, "too many header fields")
            colon = at
            while TOKEN[<unsigned char>colon[0]]:
                colon += 1
            if colon == at or colon[0] != 58:
                return self.fail(bad, "malformed field name")
            value = colon + 1
            stop = value
            while VALUE[<unsigned char>stop[0]]:
                stop += 1
            if stop[0] != 13 or stop[1] != 10:
                return self.fail(bad, "malformed field value")
            scan = stop
            while value < scan and (value[0] == 32 or value[0] == 9):
                value += 1
            while scan > value and (scan[-1] == 32 or scan[-1] == 9):
                scan -= 1
            field = &head.fields[head.field_count]
            field.name = at
            field.name_size = <int>(colon - at)
            field.value = value
            field.value_size = <int>(scan - value)
            field.kind = classify(at, field.name_size)
            head.field_count += 1
            if field.kind != FIELD_OTHER and self.note_field(field) == EVENT_ERROR:
                return EVENT_ERROR
            at = stop + 2
        return EVENT_HEAD

    cdef Event note_field(self, Field* field):
        cdef int bad = 400 if self.is_request else 502
        cdef const char* at
        cdef const char* end
        cdef const char* item
        cdef int size = 0
        if field.kind == FIELD_HOST and self.is_request:
            if head.host != NULL:
                return self.fail(400, "more than one Host")
            head.host = field.value
            head.host_size = field.value_size
            at = field.value
            end = at + field.value_size
            while at < end:
                if not TARGET[<unsigned char>at[0]] or at[0] == 47 or at[0] == 44 or at[0] == 64:
                    return self.fail(400, "malformed Host")
                at += 1
        elif field.kind == FIELD_CONTENT_LENGTH:
            if head.content_length >= 0:
                return self.fail(bad, "more than one Content-Length")
            if field.value_size == 0 or field.value_size > MAX_LENGTH_DIGITS:
                return self.fail(bad, "malformed Content-Length")
            head.content_length = 0
            at = field.value
            end = at + field.value_size
            while at < end:
                if at[0] < 48 or at[0] > 57:
                    return self.fail(bad, "malformed Content-Length")
                head.content_length = head.content_length * 10 + (at[0] - 48)
                at += 1
        elif field.kind == FIELD_TRANSFER_ENCODING:
            if head.framing == FRAMING_CHUNKED:
                return self.fail(bad, "more than one Transfer-Encoding")
            if not (field.value_size == 7 and equals_ignoring_case(field.value, 7, b"chunked")):
                return self.fail(501 if self.is_request else 502, "transfer coding not supported")
            if head.minor_version == 0:
                return self.fail(bad, "Transfer-Encoding in HTTP/1.0")
            head.framing = FRAMING_CHUNKED
        elif field.kind == FIELD_CONNECTION:
            at = field.value
            end = at + field.value_size
            while True:
                item = next_list_item(&at, end, &size)
                if item == NULL:
                    break
                if size == 5 and equals_ignoring_case(item, 5, b"close"):
                    head.wants_close = True
                elif size == 10 and equals_ignoring_case(item, 10, b"keep-alive"):
                    if head.minor_version == 0:
                        head.wants_close = False
                elif size == 7 and equals_ignoring_case(item, 7, b"upgrade"):
                    head.upgrade = True
        elif field.kind == FIELD_EXPECT and self.is_request:
            if field.value_size != 12 or not equals_ignoring_case(field.value, 12, b"100-continue"):
                return self.fail(417, "expectation not supported")
            head.expects_continue = head.minor_version == 1
        return EVENT_HEAD

    cdef void mark_connection_options(self):
        """RFC 9110 section 7.6.1: fields that Connection names belong to this hop alone."""
        cdef int i, j, size = 0
        cdef const char* at
        cdef const char* end
        cdef const char* item
        cdef bint may_upgrade = False
        for i in range(head.field_count):
            if head.fields[i].kind == FIELD_UPGRADE:
                may_upgrade = True
            if head.fields[i].kind != FIELD_CONNECTION:
                continue
            at = head.fields[i].value
            end = at + head.fields[i].value_size
            while True:
                item = next_list_item(&at, end, &size)
                if item == NULL:
                    break
                for j in range(head.field_count):
                    if head.fields[j].kind == FIELD_OTHER and head.fields[j].name_size == size and \
                            same_name(head.fields[j].name, item, size):
                        head.fields[j].kind = FIELD_HOP_BY_HOP
        # RFC 9113 section 3.1 gave the upgrade to HTTP/2 up. A server that still takes it would be sent requests inside
        # a tunnel, past every check that is made per request (h2c smuggling), so nobody is offered one.
        for i in range(head.field_count):
            if head.fields[i].kind == FIELD_UPGRADE and names_http2(head.fields[i].value, head.fields[i].value_size):
                may_upgrade = False
        head.upgrade = head.upgrade and may_upgrade

    cdef Event frame_request(self):
        if head.host == NULL and head.minor_version == 1:
            return self.fail(400, "no Host")
        if head.framing == FRAMING_CHUNKED:
            if head.content_length >= 0:
                return self.fail(400, "Content-Length beside Transfer-Encoding")
            self.begin_chunks()
        elif head.content_length > 0:
            head.framing = FRAMING_LENGTH
            self.remaining = head.content_length
            self.state = BODY_LENGTH
        else:
            head.framing = FRAMING_LENGTH if head.content_length == 0 else FRAMING_NONE
            self.state = DONE
        self.mark_connection_options()
        return EVENT_HEAD

    cdef Event frame_response(self):
        """RFC 9112 section 6.3: what ends the body of a response."""
        if head.framing == FRAMING_CHUNKED and head.content_length >= 0:
            return self.fail(502, "Content-Length beside Transfer-Encoding")
        self.mark_connection_options()
        if head.status < 200:
            self.state = DONE
        elif self.request_method == METHOD_HEAD or head.status == 204 or head.status == 304 or \
                (self.request_method == METHOD_CONNECT and head.status < 300):
            self.state = DONE
        elif head.framing == FRAMING_CHUNKED:
            self.begin_chunks()
        elif head.content_length >= 0:
            head.framing = FRAMING_LENGTH
            self.remaining = head.content_length
            self.state = BODY_LENGTH
        else:
            head.framing = FRAMING_UNTIL_CLOSE
            head.wants_close = True
            self.state = BODY_UNTIL_CLOSE
        return EVENT_HEAD

    # Chunked bodies, RFC 9112 section 7.1

    cdef void begin_chunks(self):
        self.state = BODY_CHUNK_SIZE
        self.chunk_size = 0
        self.chunk_digits = 0
        self.chunk_line = 0
        self.chunk_excess = 0

    cdef Event read_chunk_size(self, const char** cursor, const char* end):
        """Consume a chunk-size line; the state says what follows. NEED_DATA means go on with what `next_event`
        finds."""
        cdef int bad = 400 if self.is_request else 502
        cdef signed char digit
        cdef unsigned char c
        while cursor[0] < end:
            c = <unsigned char>cursor[0][0]
            self.chunk_line += 1
            if self.chunk_line > MAX_CHUNK_LINE:
                return self.fail(bad, "chunk-size line too long")
            cursor[0] += 1
            if self.state == BODY_CHUNK_SIZE:
                digit = HEX[c]
                if digit >= 0:
                    if self.chunk_digits == 15:
                        return self.fail(bad, "chunk size too large")
                    self.chunk_size = self.chunk_size * 16 + digit
                    self.chunk_digits += 1
                elif self.chunk_digits == 0:
                    return self.fail(bad, "malformed chunk size")
                elif c == 13:
                    self.state = BODY_CHUNK_SIZE_LF
                elif c == 59:
                    self.state = BODY_CHUNK_EXTENSION
                else:
                    return self.fail(bad, "malformed chunk size")
            elif self.state == BODY_CHUNK_EXTENSION:
                if c == 13:
                    self.state = BODY_CHUNK_SIZE_LF
                elif not VALUE[c]:
                    return self.fail(bad, "malformed chunk extension")
            elif c != 10:
                return self.fail(bad, "chunk-size line does not end in CRLF")
            else:
                self.chunk_excess += self.chunk_line - CHUNK_ALLOWANCE - self.chunk_size
                if self.chunk_excess < 0:
                    self.chunk_excess = 0
                elif self.chunk_excess > MAX_CHUNK_EXCESS:
                    return self.fail(bad, "more chunk framing than data")
                self.state = BODY_CHUNK_DATA if self.chunk_size > 0 else TRAILERS
                self.held_size = 0
                self.scanned = 0
                break
        return NEED_DATA

    cdef Event read_trailers(self, const char** cursor, const char* end):
        """Trailer fields up to the empty line: EVENT_TRAILERS if there are any (then END follows), else EVENT_END."""
        cdef const char* at = cursor[0]
        cdef Event event
        while at < end:
            if self.held_size >= MAX_TRAILERS:
                return self.fail(431 if self.is_request else 502, "trailers too large")
            self.hold(at, 1)
            at += 1
            if self.held_size >= 2 and memcmp(self.held + self.held_size - 2, b"\r\n", 2) == 0 and (
                self.held_size == 2
                or (self.held_size >= 4 and memcmp(self.held + self.held_size - 4, b"\r\n", 2) == 0)
            ):
                cursor[0] = at
                if self.held_size == 2:
                    self.held_size = 0
                    self.state = DONE
                    return EVENT_END
                head.field_count = 0
                head.content_length = -1
                head.framing = FRAMING_NONE
                event = self.parse_trailers(self.held, self.held + self.held_size - 2)
                self.held_size = 0
                if event == EVENT_ERROR:
                    return event
                self.state = DONE
                return EVENT_TRAILERS
        cursor[0] = end
        return NEED_DATA

    cdef Event parse_trailers(self, const char* data, const char* end):
        """RFC 9110 section 6.5.1: what frames, routes or authenticates a message has no place in its trailers."""
        cdef int i
        cdef FieldKind kind
        head.minor_version = 1
        head.host = NULL
        if self.parse_fields(data, end) == EVENT_ERROR:
            return EVENT_ERROR
        for i in range(head.field_count):
            kind = head.fields[i].kind
            if kind != FIELD_OTHER:
                head.fields[i].kind = FIELD_TRAILER_FORBIDDEN
        return EVENT_TRAILERS


cdef bint names_http2(const char* value, int value_size) noexcept nogil:
    """Whether an Upgrade field offers or takes HTTP/2: `h2c`, or `h2`, which no upgrade may name but some servers
    take."""
    cdef const char* at = value
    cdef const char* item
    cdef int size = 0
    while True:
        item = next_list_item(&at, value + value_size, &size)
        if item == NULL:
            return False
        if size == 3 and equals_ignoring_case(item, 3, b"h2c") or size == 2 and equals_ignoring_case(item, 2, b"h2"):
            return True
