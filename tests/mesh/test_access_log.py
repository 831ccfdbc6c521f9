"""The access log: one line per inbound request, in Linkerd's two forms."""

import json
import re
import time
from collections.abc import Callable

import pytest
from h2.events import RequestReceived, StreamEnded

from tests.kit.counts import comes_to
from tests.kit.http2 import GET, call, serve
from tests.kit.lines import Line
from tests.kit.topology import Mesh, Pod


def logged(pod: Pod) -> list[str]:
    """Lines of the access log: neither of the two forms looks like the proxy's own log."""
    return [line for line in pod.proxy.log.splitlines() if " - [" in line or line.startswith("{")]


@pytest.fixture(scope="module", params=["apache", "json"])
def logging(request: pytest.FixtureRequest, mesh: Mesh) -> Pod:
    """A pod that logs access."""
    return mesh.pod(f"logs-{request.param}", settings={"ACCESS_LOG": request.param})


def test_each_request_is_one_line(logging: Pod, lines: Callable[..., Line], client: Pod) -> None:
    line = lines(client, logging)
    caller = line.open()
    before = len(logged(logging))
    caller.send(
        "GET /a?b=c HTTP/1.1\r\nhost: web\r\nuser-agent: kit \"1\"\r\nx-request-id: r1\r\nx-b3-traceid: t1\r\n"
        "content-length: 2\r\n\r\nhi"
    )  # fmt: skip
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno!")
    assert caller.answer().status == 404
    comes_to(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    stamp = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"
    address = rf"{re.escape(client.ip)}:\d+"
    if logging.name == "logs-apache":
        assert re.fullmatch(
            rf'{address} {re.escape(client.identity)} - \[{stamp}\] "GET /a\?b=c HTTP/1.1" 404', text
        ), text
        return
    found = json.loads(text)
    assert list(found) == [
        "client.addr", "client.id", "host", "method", "processing_ns", "request_bytes", "response_bytes", "status",
        "timestamp", "total_ns", "trace_id", "uri", "user_agent", "version",
    ]  # fmt: skip
    assert re.fullmatch(address, found.pop("client.addr"))
    assert re.fullmatch(stamp, found.pop("timestamp"))
    assert 0 < int(found.pop("processing_ns")) < int(found.pop("total_ns")) < 10_000_000_000
    assert found == {
        "client.id": client.identity, "host": "web", "method": "GET", "request_bytes": "2", "response_bytes": "3",
        "status": 404, "trace_id": "t1", "uri": "/a?b=c", "user_agent": 'kit "1"', "version": "HTTP/1.1",
    }  # fmt: skip


def test_a_caller_without_identity_and_a_refusal_are_logged_too(logging: Pod, outsider: Pod) -> None:
    """Nothing listens on the port: the answer is the proxy's own."""
    before = len(logged(logging))
    assert outsider.get((logging.ip, 8089)).status == 502
    comes_to(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    if logging.name == "logs-apache":
        assert re.search(r':\d+ - - \[.*\] "GET / HTTP/1.1" 502$', text)
    else:
        found = json.loads(text)
        assert (found["client.id"], found["status"], found["response_bytes"]) == ("-", 502, "0")


def test_a_request_that_is_given_up_has_no_status(logging: Pod, lines: Callable[..., Line], client: Pod) -> None:
    line = lines(client, logging)
    before = len(logged(logging))
    caller = line.open()
    caller.send("GET /gone HTTP/1.1\r\nhost: web\r\n\r\n")
    line.accept().head()
    caller.reset()
    comes_to(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    if logging.name == "logs-apache":
        assert text.endswith('"GET /gone HTTP/1.1"')
    else:
        assert "status" not in json.loads(text)


def test_without_the_setting_nothing_is_logged(line: Line, web: Pod) -> None:
    caller = line.open()
    caller.send("GET /quiet HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    caller.answer()
    time.sleep(0.1)
    assert "/quiet" not in web.proxy.log


def test_a_stream_has_a_line_of_its_own(logging: Pod, lines: Callable[..., Line], client: Pod) -> None:
    line = lines(client, logging)
    before = len(logged(logging))
    caller = call(line)
    stream = caller.ask([*GET[:3], (":path", "/two?x"), ("user-agent", "kit")])
    app = serve(line)
    asked = app.expect(RequestReceived).stream_id
    app.fields(asked, [(":status", "200"), ("content-length", "0")], end=True)
    caller.expect(StreamEnded, stream)
    comes_to(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    if logging.name == "logs-apache":
        assert text.endswith('"GET http://web/two?x HTTP/2.0" 200')
    else:
        found = json.loads(text)
        assert (found["uri"], found["version"], found["status"]) == ("http://web/two?x", "HTTP/2.0", 200)
        assert (found["response_bytes"], found["user_agent"]) == ("0", "kit")


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {
    "x-b3-traceid": "the-b3-one", "x-request-id": "the-request", "x-amzn-trace-id": "Root=1-67891233-abcdef",
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
}  # fmt: skip
"""Those that a log line takes a trace id from, the first of them that is there."""


@pytest.fixture(scope="module")
def traced(mesh: Mesh) -> Pod:
    """One that says which trace a request belongs to: the form apache does not."""
    return mesh.pod("logs-traces", settings={"ACCESS_LOG": "json"})


@pytest.mark.parametrize("first", range(len(HEADERS) + 1))
@pytest.mark.parametrize("version", ["http1", "http2"])
def test_the_access_log_names_the_trace(
    traced: Pod, lines: Callable[..., Line], client: Pod, version: str, first: int
) -> None:
    path = f"/{version}/{first}"
    sent = list(HEADERS.items())[first:]
    line = lines(client, traced)
    if version == "http1":
        caller = line.open()
        caller.send(f"GET {path} HTTP/1.1\r\nhost: web\r\n", *(f"{name}: {value}\r\n" for name, value in sent), "\r\n")
        app = line.accept()
        app.head()
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        caller.answer()
    else:
        talk = call(line)
        stream = talk.ask([*GET[:3], (":path", path), *sent])
        server = serve(line)
        server.answer(server.expect(RequestReceived).stream_id)
        talk.expect(StreamEnded, stream)

    def found_traces() -> list[str]:
        found = [json.loads(each) for each in logged(traced)]
        return [each["trace_id"] for each in found if each.get("uri", "").endswith(path)]

    wanted = TRACE if first == 3 else sent[0][1] if sent else ""
    comes_to(found_traces, [wanted])
