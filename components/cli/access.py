"""I/O: what the CLI asks of a cluster beyond plain REST: text, and HTTP to a port of a pod through a port-forward.

A port-forward ends on the pod's loopback interface: it needs no open policy, passes no proxy, and the API server has
authorised it. Which pods are asked, and what for, does not belong here.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import httpx2 as httpx
from httpx2.websockets import HTTPXWSException, WebSocketSession

from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError

FORWARD_PROTOCOL: Final = "v4.channel.k8s.io"
"""Kubernetes' port-forward over a WebSocket: each message begins with a channel byte, data on 0 and errors on 1."""
FORWARD_SECONDS: Final = 15.0
MAX_ANSWER: Final = 64 * 1024 * 1024
"""Longest answer read from a pod: a large proxy's metrics are a few megabytes."""


class Access(Cluster):
    """A cluster with the two further ways in."""

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
        # HTTP/1.0: the answer ends with the connection, whatever its length, and is never chunked.
        request = f"{method} {path} HTTP/1.0\r\nhost: {pod}\r\ncontent-length: 0\r\n\r\n".encode()
        answer = b""
        with self._forwarded(namespace, pod, port) as socket:
            socket.send_bytes(b"\x00" + request)
            for chunk in _channel_data(socket, f"{namespace}/{pod}:{port}"):
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise ClusterError(f"{namespace}/{pod}:{port}{path} answers more than {MAX_ANSWER} bytes")
                if _complete(answer):
                    break
        head, _, body = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if status is None:
            raise ClusterError(f"{namespace}/{pod}:{port}{path} did not answer with HTTP")
        if status[1] != b"200":
            text = f"{status[1].decode()} {body[:200].decode(errors='replace')}"
            raise ClusterError(f"{namespace}/{pod}:{port}{path} answered {text}", status=int(status[1]))
        announced = _announced(head)
        if announced is not None and len(body) < announced:
            raise ClusterError(f"{namespace}/{pod}:{port}{path} ended after {len(body)} of {announced} bytes")
        return body

    @contextlib.contextmanager
    def _forwarded(self, namespace: str, pod: str, port: int) -> Iterator[WebSocketSession]:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
        try:
            with self._http.websocket(path, params={"ports": str(port)}, subprotocols=[FORWARD_PROTOCOL]) as socket:
                yield socket
        except (httpx.HTTPError, HTTPXWSException) as error:
            raise ClusterError(f"port-forward to {namespace}/{pod}:{port} failed: {error!r}") from error


def _channel_data(socket: WebSocketSession, where: str) -> Iterator[bytes]:
    """The bytes of channel 0 until the forward ends; raises ClusterError for what comes on channel 1."""
    greeted: set[int] = set()
    while True:
        try:
            message = socket.receive_bytes(timeout=FORWARD_SECONDS)
        except TimeoutError:
            raise ClusterError(f"{where} did not answer in {FORWARD_SECONDS:.0f} s") from None
        except (httpx.HTTPError, HTTPXWSException):
            return
        channel, data = message[0], message[1:]
        if channel not in greeted:
            # The first message of each channel is the port number, two bytes.
            greeted.add(channel)
            data = data[2:]
        if channel == 1 and data:
            raise ClusterError(f"port-forward to {where}: {data.decode(errors='replace').strip()}")
        if channel == 0 and data:
            yield data


def _announced(head: bytes) -> int | None:
    """The length that an answer's head announces."""
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return None if length is None else int(length[1])


def _complete(answer: bytes) -> bool:
    """Whether an answer that announces its length has all of it; one that does not ends with the connection."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    announced = _announced(head) if separator else None
    return announced is not None and len(body) >= announced
