"""components.cli.access: an HTTP exchange through a port-forward, from its messages."""

from collections.abc import Iterator

import pytest

from components.cli.access import Access
from components.cli.forward import channel_data
from components.deploy.errors import ClusterError


class Played:
    """A forward that plays messages; what is sent is kept."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)
        self.sent: list[bytes] = []

    def __enter__(self) -> "Played":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def receive(self) -> Iterator[bytes]:
        return channel_data(iter(self.messages), "demo/web:8080")


class Forwarded(Access):
    """An Access whose forwards are played."""

    def __init__(self, forward: Played) -> None:
        self.played = forward

    def forward(self, namespace: str, pod: str, port: int) -> Played:  # type: ignore[override]
        return self.played


GREETING = (b"\x00\x90\x1f", b"\x01\x90\x1f")


def get(*messages: bytes, path: str = "/metrics") -> bytes:
    return Forwarded(Played(*GREETING, *messages)).pod_get("demo", "web", 8080, path)


def test_a_body_comes_back_whole_however_it_is_cut() -> None:
    assert get(b"\x00HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n01234", b"\x0056789", b"\x00ignored") == b"0123456789"
    assert get(b"\x00HTTP/1.1 20", b"\x000 OK\r\n\r\nuntil the end") == b"until the end"


def test_the_request_is_http_1_0() -> None:
    played = Played(*GREETING, b"\x00HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n")
    Forwarded(played).pod_get("demo", "web", 8080, "/delay?ms=1", method="POST")
    assert played.sent[0].startswith(b"POST /delay?ms=1 HTTP/1.0\r\n")


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
