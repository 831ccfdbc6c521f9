"""I/O: what the CLI asks of a cluster beyond plain REST: text, and HTTP to a port of a pod through a port-forward.

A port-forward ends on the pod's loopback interface: it needs no open policy, passes no proxy, and the API server has
authorised it. Which pods are asked, and what for, does not belong here.
"""

import re
from typing import Final

import httpx2 as httpx

from components.cli.forward import Forward, Way
from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError
from components.deploy.refs import Target

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Longest answer read from a pod: a large proxy's metrics are a few megabytes."""


class Access(Cluster):
    """A cluster with the two further ways in."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._way = Way(target)

    def text(self, path: str, **params: str) -> str:
        """GET something that is not JSON, such as a log."""
        try:
            response = self._http.get(path, params=params)
        except httpx.HTTPError as error:
            raise ClusterError(f"GET {path} on {self.target} failed: {error!r}") from error
        if not response.is_success:
            raise ClusterError(f"GET {path}: {response.text[:500]}", status=response.status_code)
        return response.text

    def pod_get(self, namespace: str, pod: str, port: int, path: str, method: str = "GET") -> bytes:
        """An HTTP request to a port of a pod; the body of a 200, else ClusterError."""
        where = f"{namespace}/{pod}:{port}{path}"
        # HTTP/1.0: the answer ends with the connection, whatever its length, and is never chunked.
        request = f"{method} {path} HTTP/1.0\r\nhost: {pod}\r\ncontent-length: 0\r\n\r\n".encode()
        answer = bytearray()
        with self.forward(namespace, pod, port) as forward:
            forward.send(request)
            for chunk in forward.receive():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise ClusterError(f"{where} answers more than {MAX_ANSWER} bytes")
                if _complete(answer):
                    break
        return body_of(bytes(answer), where)

    def forward(self, namespace: str, pod: str, port: int) -> Forward:
        """A connection to a port of a pod, for a `with` statement."""
        return Forward(self._way, namespace, pod, port)


def body_of(answer: bytes, where: str) -> bytes:
    """The body of an HTTP response that is a whole 200; else ClusterError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None:
        raise ClusterError(f"{where} did not answer with HTTP")
    if status[1] != b"200":
        text = f"{status[1].decode()} {body[:200].decode(errors='replace')}"
        raise ClusterError(f"{where} answered {text}", status=int(status[1]))
    announced = _announced(head)
    if announced is not None and len(body) < announced:
        raise ClusterError(f"{where} ended after {len(body)} of {announced} bytes")
    return body


def _announced(head: bytes) -> int | None:
    """The length that an answer's head announces."""
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return None if length is None else int(length[1])


def _complete(answer: bytearray) -> bool:
    """Whether an answer that announces its length has all of it; one that does not ends with the connection."""
    end = answer.find(b"\r\n\r\n", 0, 65536)
    announced = _announced(bytes(answer[:end])) if end >= 0 else None
    return announced is not None and len(answer) - end - 4 >= announced
