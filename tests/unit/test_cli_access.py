"""components.cli.access: an HTTP exchange through a port-forward, from its messages."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from httpx2.websockets import WebSocketDisconnect

from components.cli.access import Access
from components.deploy.errors import ClusterError


class Socket:
    """Plays the messages of a forward; what is sent is kept."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)
        self.sent: list[bytes] = []

    def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)

    def receive_bytes(self, timeout: float) -> bytes:
        if not self.messages:
            raise WebSocketDisconnect
        return self.messages.pop(0)


class Forwarded(Access):
    """An Access whose forwards are played."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    @contextlib.contextmanager
    def _forwarded(self, namespace: str, pod: str, port: int) -> Iterator[Any]:
        yield self.socket


GREETING = (b"\x00\x90\x1f", b"\x01\x90\x1f")


def get(*messages: bytes, path: str = "/metrics") -> bytes:
    return Forwarded(Socket(*GREETING, *messages)).pod_get("demo", "web", 8080, path)


def test_a_body_comes_back_whole_however_it_is_cut() -> None:
    assert get(b"\x00HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n01234", b"\x0056789", b"\x00ignored") == b"0123456789"
    assert get(b"\x00HTTP/1.1 20", b"\x000 OK\r\n\r\nuntil the end") == b"until the end"


def test_the_request_is_http_1_0_on_the_data_channel() -> None:
    socket = Socket(*GREETING, b"\x00HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n")
    Forwarded(socket).pod_get("demo", "web", 8080, "/delay?ms=1", method="POST")
    assert socket.sent[0].startswith(b"\x00POST /delay?ms=1 HTTP/1.0\r\n")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"\x01connection refused", "connection refused"),
        (b"\x00HTTP/1.0 404 Not Found\r\ncontent-length: 4\r\n\r\ngone", "404 gone"),
        (b"\x00SSH-2.0", "did not answer with HTTP"),
        (b"\x00HTTP/1.0 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "after 4 of 10 bytes"),
    ],
)
def test_what_goes_wrong_is_one_error_with_the_place(message: bytes, says: str) -> None:
    with pytest.raises(ClusterError, match=says) as caught:
        get(message)
    assert "demo/web:8080" in str(caught.value)
