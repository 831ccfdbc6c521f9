"""The access log: one line per inbound request, when its response begins, in exactly Linkerd's `apache` and `json`
formats. Made only where the setting asks for it.

Lines are gathered for a tick and written together. Whoever reads them may be slow: a write that would block is put
off, and beyond a limit lines are dropped and counted, because a log must not hold up requests.
"""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer, monotonic_ns
from proxy.wire cimport fields, http1
from proxy.wire.field_block cimport FieldBlock

import os
import select
import time
from json import dumps

cdef enum:
    PIECE = 4096          # PIPE_BUF: a pipe that is writable takes this much without blocking
    FULL = 65536          # bytes gathered at which they are written at once
    MAX_HELD = 1048576    # bytes held for a reader that does not read

cdef int64_t FLUSH_NS = 20_000_000


cdef class AccessLog(Timer):
    """`style` is `apache` or `json`, `fd` where the lines go."""

    def __init__(self, Reactor reactor not None, str style not None, int fd=2):
        self.reactor = reactor
        self.is_json = style == "json"
        self.fd = fd
        self.lines = []
        self.left = b""
        self.second = -1

    cdef AccessLine line(self, str client, str identity):
        """Begin the line of a request whose head has come; `client` is ip:port, `identity` its mesh identity or
        None."""
        cdef AccessLine line = AccessLine.__new__(AccessLine)
        line.log = self
        line.began_ns = monotonic_ns()
        line.client = client
        line.identity = identity or "-"
        line.timestamp = self.timestamp()
        line.host = line.user_agent = line.request_bytes = ""
        return line

    cdef AccessLine http1_line(self, str client, str identity):
        """Begin the line of the request in http1.head."""
        cdef int i
        cdef AccessLine line = self.line(client, identity)
        line.request(
            http1.head.method_text, http1.head.method_size, http1.head.target, http1.head.target_size,
            "HTTP/1.1" if http1.head.minor_version else "HTTP/1.0",
        )
        for i in range(http1.head.field_count):
            line.header(
                http1.head.fields[i].name, http1.head.fields[i].name_size, http1.head.fields[i].value,
                http1.head.fields[i].value_size,
            )
        return line

    cdef AccessLine http2_line(self, str client, str identity, FieldBlock head):
        """Begin the line of a request in HTTP/2."""
        cdef int i, method_size = 0, scheme_size = 0, authority_size = 0, path_size = 0
        cdef const char* method = head.find(b":method", 7, &method_size)
        cdef const char* scheme = head.find(b":scheme", 7, &scheme_size)
        cdef const char* authority = head.find(b":authority", 10, &authority_size)
        cdef const char* path = head.find(b":path", 5, &path_size)
        cdef bytes uri = b""
        cdef AccessLine line = self.line(client, identity)
        if scheme != NULL and authority != NULL:
            uri = scheme[:scheme_size] + b"://" + authority[:authority_size]
        elif authority != NULL:
            uri = authority[:authority_size]
        if path != NULL:
            uri += path[:path_size]
        line.request(method, method_size, <const char*>uri, len(uri), "HTTP/2.0")
        for i in range(head.count):
            line.header(
                head.text + head.entries[i].name_at, head.entries[i].name_size, head.text + head.entries[i].value_at,
                head.entries[i].value_size,
            )
        return line

    cdef str timestamp(self):
        """RFC 3339 in UTC, to the nanosecond, without trailing zeros."""
        cdef int64_t now = time.time_ns()
        cdef int64_t second = now // 1_000_000_000
        cdef int64_t rest = now - second * 1_000_000_000
        if second != self.second:
            self.second = second
            self.second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self.second_text}.{f'{rest:09}'.rstrip('0')}Z" if rest else f"{self.second_text}Z"

    cdef void put(self, str line):
        if self.size + len(self.left) > MAX_HELD:
            self.dropped += 1
            return
        self.lines.append(line)
        self.size += len(line) + 1
        if self.size >= FULL:
            self.flush()
        elif self.slot < 0:
            self.reactor.arm(self, FLUSH_NS)

    cdef void expired(self):
        self.flush()

    def flush(self):
        """Write what is gathered, as far as the reader takes it."""
        cdef bytes data
        cdef Py_ssize_t at = 0, end
        if self.lines:
            self.lines.append("")
            data = self.left + "\n".join(self.lines).encode("utf-8", "replace")
            self.lines = []
            self.size = 0
        else:
            data = self.left
        try:
            while at < len(data) and select.select((), (self.fd,), (), 0)[1]:
                # Whole lines: other workers write to the same pipe.
                end = data.rfind(b"\n", at, at + PIECE) + 1
                at += os.write(self.fd, data[at:end if end > at else at + PIECE])
        except BlockingIOError:
            pass
        except OSError:
            at = len(data)  # nobody reads any more: that must not end a proxy
        self.left = data[at:]
        if self.left and self.slot < 0:
            self.reactor.arm(self, FLUSH_NS)


cdef str text(const char* value, Py_ssize_t size):
    """A header's value as Linkerd shows it: empty unless all of it is visible ASCII."""
    cdef Py_ssize_t i
    for i in range(size):
        if value[i] != 9 and not 32 <= value[i] <= 126:
            return ""
    return value[:size].decode("ascii")


cdef class AccessLine:
    cdef void request(self, const char* method, Py_ssize_t method_size, const char* uri, Py_ssize_t uri_size,
                      str version):
        """`version` is HTTP/1.0, HTTP/1.1 or HTTP/2.0. Over HTTP/2 the URI is whole, with scheme and authority."""
        self.method = method[:method_size].decode("utf-8", "replace")
        self.uri = uri[:uri_size].decode("utf-8", "replace")
        self.version = version

    cdef void header(self, const char* name, Py_ssize_t name_size, const char* value, Py_ssize_t size):
        """Called with every field of the request, in any case; keeps those that a line shows. The first wins."""
        if name_size == 4 and fields.equals_ignoring_case(name, 4, b"host"):
            self.host = self.host or text(value, size)
        elif name_size == 10 and fields.equals_ignoring_case(name, 10, b"user-agent"):
            self.user_agent = self.user_agent or text(value, size)
        elif name_size == 14 and fields.equals_ignoring_case(name, 14, b"content-length"):
            self.request_bytes = self.request_bytes or text(value, size)
        elif name_size == 12 and fields.equals_ignoring_case(name, 12, b"x-b3-traceid"):
            self.b3_trace_id = self.b3_trace_id or text(value, size)
        elif name_size == 12 and fields.equals_ignoring_case(name, 12, b"x-request-id"):
            self.request_id = self.request_id or text(value, size)
        elif name_size == 15 and fields.equals_ignoring_case(name, 15, b"x-amzn-trace-id"):
            self.amazon_trace_id = self.amazon_trace_id or text(value, size)
        elif name_size == 11 and size >= 55 and fields.equals_ignoring_case(name, 11, b"traceparent"):
            # W3C: version, trace id of 32 digits, parent, flags, between dashes.
            if self.w3c_trace_id is None and value[2] == 45 and value[35] == 45:
                self.w3c_trace_id = text(value + 3, 32)

    cdef void answered(self, int status, const char* length, Py_ssize_t size):
        """The response's head is known: `length` is its content-length, NULL for none."""
        cdef int64_t total
        if not self.log.is_json:
            self.log.put(f"{self.apache()} {status}")
            return
        total = monotonic_ns() - self.began_ns
        shown = {"client.addr": self.client, "client.id": self.identity, "host": self.host, "method": self.method}
        # What this proxy took until the request left: all of it, where it did not leave.
        shown["processing_ns"] = str(self.sent_ns - self.began_ns if self.sent_ns else total)
        shown["request_bytes"] = self.request_bytes
        if length != NULL:
            shown["response_bytes"] = text(length, size)
        shown["status"] = status
        shown["timestamp"] = self.timestamp
        shown["total_ns"] = str(total)
        self.put_json(shown)

    cdef void unanswered(self):
        """The request ended before any response: its line has no status."""
        if not self.log.is_json:
            self.log.put(self.apache())
            return
        self.put_json(
            {"client.addr": self.client, "client.id": self.identity, "host": self.host, "method": self.method,
             "request_bytes": self.request_bytes, "timestamp": self.timestamp}
        )

    cdef str apache(self):
        # What would end the line or hide in it is written as JSON would.
        uri = self.uri if self.uri.isprintable() else dumps(self.uri)[1:-1]
        return f'{self.client} {self.identity} - [{self.timestamp}] "{self.method} {uri} {self.version}"'

    cdef void put_json(self, dict shown):
        trace_id = self.b3_trace_id
        if trace_id is None:
            trace_id = self.request_id if self.request_id is not None else self.amazon_trace_id
        # Linkerd looks no further; who has only W3C's context is found by that.
        shown["trace_id"] = (self.w3c_trace_id if trace_id is None else trace_id) or ""
        shown["uri"] = self.uri
        shown["user_agent"] = self.user_agent
        shown["version"] = self.version
        self.log.put(dumps(shown, separators=(",", ":"), ensure_ascii=False))
