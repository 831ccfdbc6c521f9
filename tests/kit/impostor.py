"""Somebody who answers in the place of a meshed pod, with a certificate of their choice. Does I/O."""

import contextlib
import itertools
import socket
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Self

from tests.kit.peers import Leaf
from tests.kit.topology import Mesh, Pod


def showing(leaf: Leaf, client: bool = False) -> ssl.SSLContext:
    """A context that shows a leaf, whatever it is worth, and looks at nothing that it is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    if client:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.set_alpn_protocols(["tulle/http1"])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c").write_bytes(leaf.chain)
        Path(folder, "k").write_bytes(leaf.key)
        context.load_cert_chain(Path(folder, "c"), Path(folder, "k"))
    return context


class Impostor:
    """A Service behind which somebody answers over TLS with a leaf of their choice."""

    numbers = itertools.count(9500)

    def __init__(self, mesh: Mesh, pod: Pod, leaf: Leaf) -> None:
        self.context = showing(leaf)
        self.port = next(self.numbers)
        self.listener = pod.listen(self.port)
        self.address = mesh.service(f"impostor-{self.port}", 80, [pod], target=self.port)
        self.received = b""

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)

    def serve(self) -> None:
        """Until it is closed."""
        while True:
            try:
                accepted = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.answer, args=(accepted,), daemon=True).start()

    def answer(self, accepted: socket.socket) -> None:
        """Requests of one connection, each in a piece, until its client ends it."""
        accepted.settimeout(30)
        with contextlib.suppress(OSError), self.context.wrap_socket(accepted, server_side=True) as wrapped:
            while data := wrapped.recv(1000):
                self.received += data
                wrapped.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
