"""What goes over the pod network, read from a packet socket on this machine (pods run on it), put back into TCP
streams.

Traffic inside a pod, between application and proxy, does not come past here: it never leaves the pod.
"""

import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

ETH_P_ALL: Final = 0x0003
SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_MR_PROMISC: Final = 1
MAX_STREAM: Final = 4 * 1024 * 1024
"""Bytes kept of each direction of a connection."""

Flow = tuple[str, int, str, int]
"""Source address and port, destination address and port."""


@dataclass(slots=True)
class Stream:
    """One direction of one connection; segments by sequence number, so that a frame seen twice counts once."""

    segments: dict[int, bytes] = field(default_factory=dict)
    size: int = 0

    def add(self, sequence: int, payload: bytes) -> None:
        if sequence not in self.segments and self.size < MAX_STREAM:
            self.segments[sequence] = payload
            self.size += len(payload)

    @property
    def data(self) -> bytes:
        return b"".join(self.segments[sequence] for sequence in sorted(self.segments))


def parse(frame: bytes) -> tuple[Flow, int, bytes] | None:
    """Flow, sequence number and payload of an Ethernet frame with TCP over IPv4; None for anything else."""
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return None
    header = (frame[14] & 0x0F) * 4
    total = struct.unpack("!H", frame[16:18])[0]
    source, destination = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    tcp = 14 + header
    source_port, destination_port, sequence = struct.unpack("!HHI", frame[tcp : tcp + 8])
    offset = (frame[tcp + 12] >> 4) * 4
    return (source, source_port, destination, destination_port), sequence, frame[tcp + offset : 14 + total]


class Capture:
    """Records while it is entered. Needs root."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._streams: dict[Flow, Stream] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._socket: socket.socket | None = None

    def __enter__(self) -> "Capture":
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
        self._socket.bind((self._interface, 0))
        # A bridge shows its own interface what it forwards between pods only in promiscuous mode.
        request = struct.pack("IHH8s", socket.if_nametoindex(self._interface), PACKET_MR_PROMISC, 0, b"")
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        self._socket.settimeout(0.2)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def _run(self) -> None:
        assert self._socket is not None
        while not self._stop.is_set():
            try:
                frame = self._socket.recv(65536)
            except TimeoutError:
                continue
            parsed = parse(frame)
            if parsed is not None and parsed[2]:
                flow, sequence, payload = parsed
                self._streams.setdefault(flow, Stream()).add(sequence, payload)

    def between(self, source: str, destination: str) -> list[tuple[Flow, bytes]]:
        """Every direction from one address to another, with its bytes."""
        return [
            (flow, stream.data)
            for flow, stream in list(self._streams.items())
            if flow[0] == source and flow[2] == destination
        ]

    def touching(self, address: str) -> list[tuple[Flow, bytes]]:
        """Every direction that an address has part in, with its bytes."""
        return [(flow, stream.data) for flow, stream in list(self._streams.items()) if address in (flow[0], flow[2])]

    def reverse(self, flow: Flow) -> bytes:
        """The other direction of a connection."""
        stream = self._streams.get((flow[2], flow[3], flow[0], flow[1]))
        return stream.data if stream else b""


def is_client_hello(data: bytes) -> bool:
    """Whether a stream begins with a TLS ClientHello (RFC 8446 section 4.1.2)."""
    return len(data) > 5 and data[0] == 22 and data[1] == 3 and data[5] == 1


def negotiated_tls13(data: bytes) -> bool:
    """Whether a server's first flight has a ServerHello that selects TLS 1.3 (supported_versions, RFC 8446 4.2.1)."""
    if len(data) < 11 or data[0] != 22 or data[5] != 2:
        return False
    length = struct.unpack("!H", data[3:5])[0]
    return b"\x00\x2b\x00\x02\x03\x04" in data[5 : 5 + length]
