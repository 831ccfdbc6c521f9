"""What both sides' requests end at: nginx over HTTP/1 and HTTP/2, a sink for bytes, on the load's core. Does I/O."""

import subprocess
import sys
from string import Template
from typing import Final

from tests.bench.measure import LOAD_CORE
from tests.kit.topology import Pod

HTTP_PORT: Final = 8080
HTTP2_PORT: Final = 8081
TCP_PORT: Final = 9000
SIZES: Final = {"10kb": 10_000, "1kb": 1_000, "100mb": 100_000_000}
"""Files by name, with their bytes."""
GRPC_PATH: Final = "/grpc.testing.TestService/EmptyCall"
EMPTY_MESSAGE: Final = bytes(5)
"""A gRPC frame without content: not compressed, length 0."""

# A unary gRPC answer is a file of five bytes and a trailer; POST on a file is refused, so it is led there by its error.
NGINX: Final = """
daemon off; master_process off; pid $folder/nginx.pid; error_log $folder/nginx.log crit; worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http {
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type text/plain;
    open_file_cache max=100; root $folder/files; sendfile on; tcp_nopush on; http2_max_concurrent_streams 1000;
    server {
        listen 0.0.0.0:8080 backlog=4096;
        location / { return 200 "$body"; }
        location /files/ { alias $folder/files/; }
    }
    server {
        listen 0.0.0.0:8081 http2 backlog=4096;
        location / { return 200 "$body"; }
        location /grpc.testing.TestService/ { error_page 405 =200 /grpc; return 405; }
        location = /grpc { default_type application/grpc; add_trailer grpc-status 0; etag off; }
    }
}
"""
SINK: Final = """
import socket, threading
listener = socket.create_server(("0.0.0.0", 9000), backlog=4096)
def drain(connection):
    buffer = bytearray(1 << 18)
    total = 0
    while count := connection.recv_into(buffer):
        total += count
    connection.sendall(str(total).encode())
    connection.close()
while True:
    threading.Thread(target=drain, args=(listener.accept()[0],), daemon=True).start()
"""


def serve(pod: Pod, children: list[subprocess.Popen[bytes]]) -> None:
    """nginx and a sink for bytes in a pod, on the load's core."""
    files = pod.folder / "files"
    files.mkdir()
    (files / "grpc").write_bytes(EMPTY_MESSAGE)
    for name, size in SIZES.items():
        with (files / name).open("wb") as file:
            file.truncate(size)
    settings = pod.folder / "nginx.conf"
    settings.write_text(Template(NGINX).substitute(folder=pod.folder, body="x" * 100))
    pinned = ["taskset", "-c", LOAD_CORE]
    for command in (["nginx", "-c", str(settings), "-p", str(pod.folder)], [sys.executable, "-c", SINK]):
        children.append(subprocess.Popen(pod.namespace.command(*pinned, *command), stdin=subprocess.DEVNULL))
