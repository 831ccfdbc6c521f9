"""What would keep a cluster from starting here, found before anything is started: each problem with its way out."""

import errno
import ipaddress
import os
import shutil
import socket
from pathlib import Path

import cgroups
import network
from settings import Settings

IP_FREEBIND = 15
# How a subnet ends; the rest of its size is built into the role's addresses.
FORMS = {"pod": "C.0/24", "service": "0.0/16"}
NEEDED_CONTROLLERS = {"cpu", "memory", "pids"}


def problems(settings: Settings) -> list[str]:
    found = [*root(), *control_groups(settings)]
    if not found:
        found = [*disk(settings), *ports(settings), *subnets(settings), *tables()]
    return found


def root() -> list[str]:
    if os.geteuid() == 0:
        return []
    return ["not root: a node's processes need it; run the same command as root (sudo -E keeps your folders)"]


def control_groups(settings: Settings) -> list[str]:
    if cgroups.is_unified():
        there = set((cgroups.ROOT / "cgroup.controllers").read_text().split())
    else:
        there = {name for folder in cgroups.hierarchies() for name in folder.name.split(",")}
    missing = sorted(NEEDED_CONTROLLERS - there)
    if missing:
        return [
            f"no cgroup controller {', '.join(missing)} in {cgroups.ROOT}: enable it in the kernel, or use another "
            "machine"
        ]
    try:
        cgroups.make(settings.cgroup)
    except OSError as error:
        return [
            f"cannot make the cgroup {settings.cgroup!r} in {cgroups.ROOT} ({error.strerror}): in a container, start "
            "it privileged"
        ]
    return []


def disk(settings: Settings) -> list[str]:
    free = shutil.disk_usage(settings.state).free / 2**30
    if free >= settings.disk_gib:
        return []
    return [
        f"{free:.1f} GiB free at {settings.state}, {settings.disk_gib:g} GiB needed: free some, or set TULLE_STATE to "
        "a folder on a larger disk"
    ]


def ports(settings: Settings) -> list[str]:
    return [problem for name, port in settings.ports.items() for problem in port_problem(settings, name, port)]


def port_problem(settings: Settings, name: str, port: int) -> list[str]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The bridge may not be there yet; what matters is who listens on the port at all addresses.
        probe.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        try:
            probe.bind((settings.gateway, port))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return [
                f"port {port} ({name}) is in use by {holder(port)}: stop it, or choose another, which is remembered: "
                f"make up CLUSTER=cluster_port_{name}=PORT"
            ]
    return []


def holder(port: int) -> str:
    """Who listens on this TCP port, as the kernel's tables and the processes' open sockets tell."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue
    return "an unknown process"


def subnets(settings: Settings) -> list[str]:
    found = []
    for what, text in (("pod", settings.pod_subnet), ("service", settings.service_subnet)):
        wanted = ipaddress.ip_network(text)
        for route in network.routes():
            place = route.get("dst", "default")
            if place == "default" or route.get("dev") == settings.bridge or ":" in place:
                continue
            if wanted.overlaps(ipaddress.ip_network(place, strict=False)):
                found.append(
                    f"the {what} subnet {text} overlaps this machine's route {place} ({route.get('dev')}): choose "
                    f"another, which is remembered: make up CLUSTER=cluster_{what}_subnet=A.B.{FORMS[what]}"
                )
                break
    return found


def tables() -> list[str]:
    """Another kube-proxy would fight ours for its table; what a crash of ours has left has our own table beside it."""
    listed = network.run("nft", "list", "tables")
    if listed.returncode != 0:
        return [f"nftables does not work here ({listed.stderr.strip()}): load the kernel module nf_tables"]
    if "table ip kube-proxy" in listed.stdout and "table ip tulle" not in listed.stdout:
        return [
            "another cluster's kube-proxy keeps the nftables table 'ip kube-proxy' on this machine: stop that cluster "
            "first"
        ]
    return []
