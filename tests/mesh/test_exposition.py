"""All that /metrics says after one short conversation, word for word, as a golden file for each side: names, labels and
their order, buckets. `UPDATE_GOLDEN=1` writes them anew.

Times and addresses are not the conversation's: they are put into words before they are compared.
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest
from h2.events import RequestReceived, StreamEnded
from prometheus_client.parser import text_string_to_metric_families

from proxy.api.labels import ADMIN_PORT, DESTINATION_PORT, IDENTITY_PORT
from proxy.version import VERSION
from tests.kit.counts import comes_to
from tests.kit.http2 import GRPC, call, serve
from tests.kit.lines import Line
from tests.kit.sidecar import Answer, read_answer
from tests.kit.topology import Mesh, Pod
from tests.unit.test_exposition import strictly

GOLDEN: Final = Path(__file__).parent / "golden"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
TIMED: Final = re.compile(
    r"^(\w+_(?:latency_ms|duration_seconds|latency_seconds)_(?:bucket|sum)\S*|\w+_gate_open_time_seconds\S*"
    r"|(?:process|control_identity_cert)_\w*(?:seconds|seconds_total|bytes|fds|threads)|tcp_(?:read|write)_bytes_total\S*"
    r"|control_(?:request|response)\S*|proxy_build_info\S*) \S+$"
)
"""Samples whose value is how long something took, when it was, or what else happened to be going on."""


@pytest.fixture(scope="module")
def talked(mesh: Mesh) -> Iterator[tuple[Pod, Pod, Line]]:
    """A caller and a server that have had one request in HTTP/1, one in gRPC, and one opaque connection."""
    # A pooled connection must not be let go between the conversation and the look.
    client, server = (mesh.pod(f"golden-{side}", HTTP1_POOL_IDLE_TIMEOUT="10m") for side in ("client", "server"))
    with Line(mesh, client, server) as line:
        caller = line.open()
        caller.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 200\r\n\r\n" + "x" * 200)
        app = line.accept()
        app.head()
        app.exactly(200)
        app.send("HTTP/1.1 201 Created\r\ncontent-length: 2000\r\n\r\n" + "y" * 2000)
        assert caller.answer("POST").status == 201
        talk = call(line)
        stream = talk.ask(GRPC, body=b"question")
        there = serve(line)
        asked = there.expect(RequestReceived).stream_id
        there.body(asked, 8)
        there.fields(asked, [(":status", "200"), ("content-type", "application/grpc")])
        there.say(asked, b"answer")
        there.fields(asked, [("grpc-status", "5")], end=True)
        talk.expect(StreamEnded, stream)
        opaque = line.open()
        opaque.send("not HTTP at all\r\n")
        end = line.accept()
        end.until(b"\n")
        opaque.close()
        end.close()
        for pod in (client, server):
            # Of three connections from the application or the caller, the opaque one is over.
            comes_to(lambda pod=pod: pod.proxy.metric("tcp_close_total"), 2)  # type: ignore[misc]
        yield client, server, line


def scraped(pod: Pod, accept: str = "text/plain") -> Answer:
    with pod.namespace.connect(("127.0.0.1", ADMIN_PORT), 5) as connection:
        connection.sendall(f"GET /metrics HTTP/1.1\r\nhost: admin\r\naccept: {accept}\r\n\r\n".encode())
        return read_answer(connection)


def told(pod: Pod, line: Line) -> str:
    """What it says, with words for what is another every time."""
    client, server, mesh = line.client, line.server, pod.mesh
    text = scraped(pod).body.decode()
    for found, word in (
        (rf"\b{re.escape(mesh.control_pod.ip)}:{IDENTITY_PORT}\b", "IDENTITY"),
        (rf"\b{re.escape(mesh.control_pod.ip)}:{DESTINATION_PORT}\b", "DESTINATION"),
        (rf"\b{re.escape(line.address[0])}\b", "SERVICE_IP"),
        (rf"\b{re.escape(server.ip)}\b", "SERVER_IP"),
        (rf"\b{re.escape(client.ip)}\b", "CLIENT_IP"),
        (rf'(?<!le=")\b{line.port}\b', "PORT"),
        (r'(?<=groups=")[^"]*', "GROUPS"),
        (rf'(?<=version="){re.escape(VERSION)}(?=")', "VERSION"),
    ):
        text = re.sub(found, word, text)
    return "\n".join(folded(TIMED.sub(r"\1 ...", each) for each in text.splitlines())) + "\n"


def folded(lines: Iterable[str]) -> Iterator[str]:
    """The buckets of one histogram as one line: all bounds in their place, then all values."""
    bucket = re.compile(r'(.*_bucket\{.*?le=")([^"]*)("\S*) (.*)')
    for around, each in groupby(lines, lambda line: bucket.sub(r"\1 \3", line) if bucket.match(line) else None):
        if around is None:
            yield from each
            continue
        parts = [found.groups() for found in map(bucket.match, each) if found]
        values = " ".join(value for *_, value in parts) if parts[0][3] != "..." else "..."
        yield f"{parts[0][0]}{' '.join(bound for _, bound, *_ in parts)}{parts[0][2]} {values}"


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_text_is_as_it_was_agreed(talked: tuple[Pod, Pod, Line], side: str) -> None:
    client, server, line = talked
    text = told(client if side == "client" else server, line)
    path = GOLDEN / f"metrics-{side}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
def test_both_parsers_read_the_same(talked: tuple[Pod, Pod, Line], side: int) -> None:
    """Every family has its type in each of the two formats, and every sample its family."""
    pod = talked[0] if side == 0 else talked[1]
    plain, strict = scraped(pod), scraped(pod, OPENMETRICS)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert strict.headers["content-type"].startswith(OPENMETRICS)
    older = {family.name: family for family in text_string_to_metric_families(plain.body.decode())}
    newer = {family.name: family for family in strictly(strict.body.decode())}
    assert {name: family.type for name, family in older.items()} == {
        name: family.type for name, family in newer.items()
    }
    assert {family.type for family in older.values()} == {"counter", "gauge", "histogram"}
    for name, family in older.items():
        assert [sample.name for sample in family.samples] == [sample.name for sample in newer[name].samples], name


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {"metrics-client.txt", "metrics-server.txt"}
