"""I/O: a port-forward to a pod, over a WebSocket of the API server. One connection, one thread, one purpose.

(httpx2's own WebSockets read in a background thread which may outlive the session and then reads from whatever socket
got its number next: connections to the API server failed at random with "wrong version number".)
"""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import httpx2 as httpx
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import RemoteProtocolError

from components.deploy.errors import ClusterError
from components.deploy.refs import Target

PROTOCOL: Final = "v4.channel.k8s.io"
"""Each message begins with a channel byte: data on 0, errors on 1. The first message of each has the port number."""
CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 15.0
"""Longest silence of a pod that is asked something."""


class Way:
    """How to reach an API server: where, by which TLS context, and with which headers."""

    def __init__(self, target: Target) -> None:
        config = KubeConfig.from_file(Path(target.kubeconfig).expanduser()).get(target.context)
        if config is None:
            raise ClusterError(f"{target} does not exist")
        self._config: SingleConfig = config
        self.server = urlsplit(config.cluster.server)
        user = config.user or User()
        verify = verify_cluster(config.cluster, user, config.abs_file, trust_env=False)
        if isinstance(verify, ssl.SSLContext):
            self.context = verify
        else:
            self.context = ssl.create_default_context()
            if not verify:
                self.context.check_hostname = False
                self.context.verify_mode = ssl.CERT_NONE

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What authorises a request, by whatever way the kubeconfig has."""
        auth = user_auth(self._config.user) if self._config.user is not None else None
        if auth is None:
            return []
        request = httpx.Request("GET", self._config.cluster.server)
        flow = auth.sync_auth_flow(request)
        value = next(flow).headers.get("Authorization", "")
        flow.close()
        return [(b"Authorization", value.encode())] if value else []

    def connect(self) -> socket.socket:
        """A connection to the API server."""
        host, tls = self.server.hostname or "", self.server.scheme == "https"
        plain = socket.create_connection((host, self.server.port or (443 if tls else 80)), CONNECT_SECONDS)
        plain.settimeout(IDLE_SECONDS)
        return self.context.wrap_socket(plain, server_hostname=host) if tls else plain


class Forward:
    """One forwarded connection: bytes to the pod's port, bytes from it."""

    def __init__(self, way: Way, namespace: str, pod: str, port: int) -> None:
        self._where = f"{namespace}/{pod}:{port}"
        self._way = way
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        self._websocket = WSConnection(ConnectionType.CLIENT)

    def __enter__(self) -> "Forward":
        try:
            self._socket = self._way.connect()
            base = self._way.server.path.rstrip("/")
            request = Request(
                host=self._way.server.netloc,
                target=base + self._path,
                subprotocols=[PROTOCOL],
                extra_headers=self._way.headers(),
            )
            self._socket.sendall(self._websocket.send(request))
            self._events = self._read()
            self._accepted(next(self._events, None))
        except (OSError, RemoteProtocolError) as error:
            raise ClusterError(f"port-forward to {self._where} failed: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes to the pod."""
        self._socket.sendall(self._websocket.send(BytesMessage(b"\x00" + data)))

    def receive(self) -> Iterator[bytes]:
        """What the pod sends, until it ends; raises ClusterError for what the API server says went wrong."""
        yield from channel_data(self._messages(), self._where)

    def _messages(self) -> Iterator[bytes]:
        buffer = b""
        try:
            for event in self._events:
                if isinstance(event, BytesMessage):
                    buffer += bytes(event.data)
                    if event.message_finished:
                        yield buffer
                        buffer = b""
                elif isinstance(event, CloseConnection):
                    return
        except TimeoutError:
            raise ClusterError(f"{self._where} did not answer in {IDLE_SECONDS:.0f} s") from None
        except (OSError, RemoteProtocolError) as error:
            raise ClusterError(f"port-forward to {self._where} broke: {error}") from error

    def _accepted(self, event: object) -> None:
        """Raise unless the API server took the request; a refusal says why in its body."""
        if isinstance(event, AcceptConnection):
            return
        status, body = 0, b""
        if isinstance(event, RejectConnection):
            status = event.status_code
            for more in self._events if event.has_body else ():
                if isinstance(more, RejectData):
                    body += bytes(more.data)
                    if more.body_finished:
                        break
        self._socket.close()
        said = body.decode(errors="replace")[:300].strip() or "the connection ended"
        raise ClusterError(f"port-forward to {self._where} was refused ({status}): {said}", status=status)

    def _read(self) -> Iterator[object]:
        """Events of the WebSocket, as they come; pings are answered on the way."""
        while True:
            yield from self._known_events()
            data = self._socket.recv(65536)
            self._websocket.receive_data(data or None)
            if not data:
                yield from self._known_events()
                return

    def _known_events(self) -> Iterator[object]:
        for event in self._websocket.events():
            if isinstance(event, Ping):
                self._socket.sendall(self._websocket.send(event.response()))
            elif isinstance(event, Message | AcceptConnection | RejectConnection | RejectData | CloseConnection):
                yield event


def channel_data(messages: Iterator[bytes], where: str) -> Iterator[bytes]:
    """The bytes of channel 0; raises ClusterError for what comes on channel 1."""
    greeted: set[int] = set()
    for message in messages:
        channel, data = message[0], message[1:]
        if channel not in greeted:
            greeted.add(channel)
            data = data[2:]
        if channel == 1 and data:
            raise ClusterError(f"port-forward to {where}: {data.decode(errors='replace').strip()}")
        if channel == 0 and data:
            yield data
