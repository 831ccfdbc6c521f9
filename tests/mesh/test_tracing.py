"""Trace contexts pass as they are: W3C's and B3's headers over HTTP/1, HTTP/2 and gRPC, through both proxies.

No collector can be configured, so the proxies make no spans, and need not touch what others' spans are joined by.
"""

import base64
from typing import Any

import pytest
from h2.events import RequestReceived, StreamEnded

from tests.kit.http2 import GRPC, POST, Fields, call, serve
from tests.kit.lines import Line

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
CONTEXTS: dict[str, list[tuple[str, str]]] = {
    "w3c": [
        ("traceparent", f"00-{TRACE}-{SPAN}-01"),
        ("tracestate", "congo=t61rcWkgMzE,  rojo=00f067aa0ba902b7"),
        ("tracestate", "vendor@tenant=a:b;c"),
        ("baggage", "userId=Am%C3%A9lie,serverNode=DF%2028"),
    ],
    "b3-single": [("b3", f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90")],
    "b3-multi": [
        ("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
        ("x-b3-sampled", "1"), ("x-b3-flags", "1"),
    ],
    "grpc-binary": [("grpc-trace-bin", base64.b64encode(bytes(range(29))).decode().rstrip("="))],
    "not sampled": [("traceparent", f"00-{TRACE}-{SPAN}-00"), ("x-b3-sampled", "0")],
    "malformed": [("traceparent", "00-xyz"), ("b3", ""), ("x-b3-traceid", "not hex"), ("tracestate", "=,=,")],
    "of another version": [("traceparent", f"cc-{TRACE}-{SPAN}-01-what-the-future-brings")],
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
def test_over_http1(line: Line, name: str) -> None:
    # Names are written as clients write them; a proxy has no reason to spell them another way.
    sent = [f"{field.title()}: {value}" for field, value in CONTEXTS[name]]
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n" + "\r\n".join(sent) + "\r\n\r\n")
    app = line.accept()
    head = app.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    names = {field.split(":")[0].lower() for field in sent}
    assert [each for each in head[1:] if each.split(":")[0].lower() in names] == sent
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + "\r\n".join(sent) + "\r\n\r\n")
    answered = caller.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    assert [each for each in answered[1:] if each.split(":")[0].lower() in names] == sent


@pytest.mark.parametrize("fields", [POST, GRPC], ids=["http2", "grpc"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_over_http2(line: Line, fields: Fields, name: str) -> None:
    context = CONTEXTS[name]
    names = {field for field, _ in context}
    caller = call(line)
    stream = caller.ask([*fields, *context], body=b"x")
    app = serve(line)
    asked: Any = app.expect(RequestReceived)
    assert [pair for pair in asked.headers if pair[0] in names] == context
    app.answer(asked.stream_id, b"y")
    caller.expect(StreamEnded, stream)
