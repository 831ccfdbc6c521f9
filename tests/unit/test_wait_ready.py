"""Holding an application back until its proxy says ready."""

import socket
import threading
import time

import pytest

from proxy.wait_ready import main
from tests.kit.waiting import slowness


class Server:
    """Answers each question with the next of some canned answers, the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = str(self.listener.getsockname()[1])
        self.asked: list[bytes] = []
        self.answers = list(answers)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096))
                connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def test_it_waits_until_ready() -> None:
    server = Server(
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"", b"nonsense from elsewhere", b"HTTP/1.1 200 OK\r\n\r\n"
    )
    assert main(["--timeout", "10", "--port", server.port]) == 0
    assert len(server.asked) == 4
    assert server.asked[0].startswith(b"GET /ready HTTP/1.")


def test_it_gives_up_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    started = time.monotonic()
    assert main(["--timeout", "0.5", "--port", server.port]) == 69
    assert time.monotonic() - started < 2 * slowness()
    assert "not ready within 0.5 s" in capsys.readouterr().err


def test_nobody_listening_is_not_ready() -> None:
    assert main(["--timeout", "0", "--port", "1"]) == 69


@pytest.mark.parametrize(
    "arguments", [["--timeout"], ["--timeout", "soon"], ["--port", "0"], ["--what", "1"], ["--timeout", "-1"]]
)
def test_a_bad_argument_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 64
    assert "usage:" in capsys.readouterr().err
