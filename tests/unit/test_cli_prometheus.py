"""A Prometheus that is not the mesh's: asked directly, or through the API server where its address is a Service's."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from components.cli.prometheus import OtherPrometheus
from components.deploy.errors import ClusterError
from components.deploy.refs import Ref

ANSWER = {"status": "success", "data": {"result": [{"metric": {"a": "b"}, "value": [1, "2.5"]}]}}


class Access:
    """What is asked of an API server: which Services there are, and what their ports answer."""

    def __init__(self, *services: tuple[str, str]) -> None:
        self.services = services
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, ref: Ref) -> dict[str, Any] | None:
        return {} if (ref.namespace, ref.name) in self.services else None

    def text(self, path: str, **params: str) -> str:
        self.asked.append((path, params))
        return json.dumps(ANSWER)


@contextmanager
def serving(answer: object) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers every query with this."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://prometheus.monitoring:9090", "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy"),
        ("http://prometheus.monitoring.svc.cluster.local/",
         "/api/v1/namespaces/monitoring/services/prometheus:80/proxy"),
        ("https://prometheus.monitoring/prom",
         "/api/v1/namespaces/monitoring/services/https:prometheus:443/proxy/prom"),
    ],
)  # fmt: skip
def test_the_address_of_a_service_is_asked_through_the_api_server(url: str, path: str) -> None:
    access = Access(("monitoring", "prometheus"))
    (sample,) = OtherPrometheus(access, url).query("up")  # type: ignore[arg-type]
    assert (sample.labels, sample.value) == ({"a": "b"}, 2.5)
    assert access.asked == [(f"{path}/api/v1/query", {"query": "up"})]


def test_any_other_address_is_asked_directly() -> None:
    with serving(ANSWER) as (url, seen):
        (sample,) = OtherPrometheus(Access(), url).query('sum(up{a="b"})')  # type: ignore[arg-type]
    assert sample.value == 2.5
    assert parse_qs(urlsplit(seen[0]).query) == {"query": ['sum(up{a="b"})']}
    with serving({"status": "error", "error": "too long"}) as (url, _), pytest.raises(ClusterError, match="too long"):
        OtherPrometheus(Access(), url).query("up")  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match=r"cannot be asked from here.*\n.*prometheus.url="):
        OtherPrometheus(Access(), url).query("up")  # type: ignore[arg-type]
