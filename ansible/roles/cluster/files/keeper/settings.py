"""The keeper's settings as frozen values, read from the one JSON file that the cluster role writes. Decides nothing."""

import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

# A probe that takes longer than this counts as not ready, and is asked again.
PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Member:
    """A long-running process, and how it is seen to serve: `unix:PATH`, `tcp:HOST:PORT`, an address, or not at all."""

    name: str
    argv: tuple[str, ...]
    ready: str = ""
    authority: str = ""

    def is_ready(self) -> bool:
        kind, _, rest = self.ready.partition(":")
        try:
            if kind == "unix":
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(PROBE_SECONDS)
                    probe.connect(rest)
            elif kind == "tcp":
                host, _, port = rest.rpartition(":")
                socket.create_connection((host, int(port)), PROBE_SECONDS).close()
            elif kind in ("http", "https"):
                context = ssl.create_default_context(cafile=self.authority) if self.authority else None
                with urlopen(self.ready, timeout=PROBE_SECONDS, context=context):  # noqa: S310 (the scheme is known)
                    pass
        except (OSError, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Settings:
    """Everything the keeper is told; what it finds out by itself is in the modules that use it."""

    path: Path
    state: Path
    cgroup: str
    bridge: str
    address: str
    pod_subnet: str
    service_subnet: str
    binds: dict[str, str]
    shielded: tuple[str, ...]
    ports: dict[str, int]
    disk_gib: float
    node: str
    kubectl: tuple[str, ...]
    ctr: tuple[str, ...]
    members: tuple[Member, ...]

    @classmethod
    def read(cls, path: Path) -> "Settings":
        raw = json.loads(path.read_text())
        raw["members"] = tuple(
            Member(one["name"], tuple(one["argv"]), one.get("ready", ""), one.get("authority", ""))
            for one in raw["members"]
        )
        for name in ("shielded", "kubectl", "ctr"):
            raw[name] = tuple(raw[name])
        return cls(path=path, **{**raw, "state": Path(raw["state"])})

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def pids(self) -> Path:
        return self.state / "run" / "pids.json"

    @property
    def gateway(self) -> str:
        """The bridge's own address: the node's address too, so that it stays when the machine changes networks."""
        return self.address.partition("/")[0]
