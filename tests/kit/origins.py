"""Servers that are not ours, run inside a pod as its application. Does I/O."""

import subprocess
import time
from pathlib import Path
from string import Template
from typing import Final, Self

from tests.kit.sidecar import Failed
from tests.kit.topology import Pod

NGINX: Final = """
daemon off; master_process off; pid $folder/nginx-$port.pid; error_log $folder/nginx-$port.log warn;
worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http {
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type text/plain;
    client_body_temp_path $folder/nginx-$port-body; client_max_body_size 0; client_body_buffer_size 1m;
    large_client_header_buffers 4 64k;
    $settings
    server {
        listen [::]:$port ipv6only=off backlog=4096$protocol;
        root $folder;
        location / { return 200 "$body"; }
        location /files/ { }
    }
}
"""


class Server:
    """A program in a pod that listens on a port; ends with the context."""

    def __init__(self, pod: Pod, port: int, *command: str, env: dict[str, str] | None = None) -> None:
        self.pod = pod
        self.port = port
        self.log = pod.folder / f"{Path(command[0]).name}-{port}.log"
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                pod.namespace.command(*command), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env
            )
        try:
            self.wait_listening()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_listening(self, seconds: float = 15) -> None:
        """Until its port takes connections from inside the pod."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.pod.namespace.connect(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.03)
        raise Failed(f"{self.process.args!r} does not listen on {self.port}\n{self.log.read_text(errors='replace')}")

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Nginx(Server):
    """nginx that answers every path with a short body, over HTTP/1 or (prior knowledge) HTTP/2."""

    def __init__(self, pod: Pod, port: int, *, http2: bool = False, body: str = "x" * 100, settings: str = "") -> None:
        more = "http2_max_concurrent_streams 1000; " if http2 else ""
        path = pod.folder / f"nginx-{port}.conf"
        (pod.folder / "files").mkdir(exist_ok=True)
        path.write_text(
            Template(NGINX).substitute(
                folder=pod.folder, port=port, body=body, settings=more + settings, protocol=" http2" if http2 else ""
            )
        )
        super().__init__(pod, port, "nginx", "-c", str(path), "-p", str(pod.folder))
