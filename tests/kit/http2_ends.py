"""Both ends of HTTP/2 traffic on the `h2` library: an application that answers every request, a caller that goes on
asking. Does I/O.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.kit.http2 import Talk, named
from tests.kit.lines import Listening, Load, Peer
from tests.kit.sidecar import Answer
from tests.kit.topology import Pod

BODY: Final = b"x" * 100


class Origin(Listening):
    """An application that reads each request to its end and answers it with a body; keeps to every rule `h2` knows."""

    def __init__(
        self, pod: Pod, port: int, body: bytes = BODY, answering: "Callable[[bytes], Answering] | None" = None
    ) -> None:
        self.body = body
        self.answering = answering or Answering
        self.faults: list[str] = []
        """What it was sent against the rules."""
        super().__init__(pod, port)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            answering = self.answering(self.body)
            connection.sendall(answering.take())
            while data := connection.recv(262_144):
                answering.receive(data)
                connection.sendall(answering.take())
                if answering.fault:
                    self.faults.append(answering.fault)
                    return


class Answering:
    """One connection of such an application, without its socket."""

    def __init__(self, body: bytes = BODY) -> None:
        self.body = body
        self.fault = ""
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.connection.initiate_connection()
        self.waiting: dict[int, bytes] = {}
        """What is left of each answer."""
        self.bodiless: set[int] = set()

    def take(self) -> bytes:
        """What there is to send."""
        return bytes(self.connection.data_to_send())

    def receive(self, data: bytes) -> None:
        """Take bytes, answer what is whole, go on with what waits for a window."""
        try:
            events = self.connection.receive_data(data)
        except ProtocolError as error:
            self.fault = repr(error)
            return
        for event in events:
            # By the time all of a piece is read, what came first in it may have been taken back.
            with contextlib.suppress(ProtocolError):
                self.saw(event)
        for stream in list(self.waiting):
            try:
                self._go_on(stream)
            except ProtocolError:
                del self.waiting[stream]

    def saw(self, event: Any) -> None:
        """One thing that came."""
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, RequestReceived):
            if (b":method", b"HEAD") in event.headers:
                self.bodiless.add(event.stream_id)
        elif isinstance(event, StreamEnded):
            has_body = event.stream_id not in self.bodiless
            self.connection.send_headers(event.stream_id, [(b":status", b"200")], end_stream=not has_body)
            if has_body:
                self.waiting[event.stream_id] = self.body
        elif isinstance(event, StreamReset):
            self.waiting.pop(event.stream_id, None)

    def _go_on(self, stream: int) -> None:
        while left := self.waiting[stream]:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if room <= 0:
                return
            self.connection.send_data(stream, left[:room])
            self.waiting[stream] = left[room:]
        self.connection.end_stream(stream)
        del self.waiting[stream]


class HTTP2Load(Load):
    """Clients that send one request after another over HTTP/2, each on a connection that stays."""

    def open(self) -> Talk:
        """A connection."""
        return Talk(Peer(self.pod.connect(self.address)), True)

    def ask(self, connection: Talk) -> Answer:
        """One request on a stream of its own."""
        stream = connection.ask()
        fields = named(connection.expect(ResponseReceived, stream))
        connection.expect(StreamEnded, stream)
        connection.events.clear()
        return Answer(int(fields.pop(":status")), fields, b"")
