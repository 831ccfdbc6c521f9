#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""What a machine is, as far as the mesh depends on it: distribution, files, iptables, firewall, clock, ports."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_state
short_description: Look at what the mesh depends on at a machine, without touching anything
version_added: "0.1.0"
description:
  - Only looks. What it means is decided by the filter C(tulle.mesh.node_problems).
options:
  paths:
    description: Folders that have to be written to. One that is not there is asked of the folder that would hold it.
    type: list
    elements: path
    default: []
  ports:
    description: TCP ports that have to be free.
    type: list
    elements: int
    default: []
  uids:
    description: Users that may listen there, because they are the mesh's own.
    type: list
    elements: int
    default: []
  api_url:
    description: The API server, for its clock. Empty for none.
    type: str
    default: ""
  timeout:
    description: The most that the API server may take to answer, in seconds.
    type: float
    default: 5
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Look at a machine
  tulle.mesh.node_state:
    paths: [/etc/sysctl.d]
    api_url: https://192.0.2.1:6443
  register: state
"""

RETURN = r"""
state:
  description: Distribution, rights, folders, SELinux, iptables, firewalls, clock and taken ports.
  type: dict
  returned: always
"""

import email.utils
import errno
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAMILIES = {
    "debian": "Debian",
    "ubuntu": "Debian",
    "rhel": "RedHat",
    "fedora": "RedHat",
    "suse": "Suse",
    "sles": "Suse",
}
KUBERNETES = re.compile(r"^:(KUBE-|CNI-|FLANNEL|cali-|CILIUM_)", re.MULTILINE)
BACKENDS = ("nft", "legacy")
LISTEN = "0A"


def distribution(text: str) -> dict[str, str]:
    """What os-release says, and the family whose packages and tools it has; empty for one that is not known."""
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    said = {key: value.strip("\"' \t") for key, value in pairs.items()}
    name = said.get("ID", "")
    alike = [name, *said.get("ID_LIKE", "").split()]
    family = next((FAMILIES[one] for one in alike if one in FAMILIES), "")
    if not family and name.startswith("opensuse"):
        family = "Suse"
    return {
        "id": name or "unknown",
        "version": said.get("VERSION_ID", ""),
        "name": said.get("PRETTY_NAME", name or "unknown"),
        "family": family,
    }


def os_release() -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            return Path(path).read_text(errors="replace")
    return ""


def selinux() -> str:
    try:
        return "enforcing" if Path("/sys/fs/selinux/enforce").read_text().strip() == "1" else "permissive"
    except OSError:
        return "absent"


def writable(path: str, enforcing: bool) -> str:
    """Whether a file could be made in a folder: tried with one that has no name, so that nothing is left or dated."""
    place = path
    while not os.path.isdir(place) and place != "/":
        place = os.path.dirname(place)
    try:
        os.close(os.open(place, os.O_TMPFILE | os.O_WRONLY, 0o600))
        return "yes"
    except OSError as error:
        if error.errno == errno.EROFS or os.statvfs(place).f_flag & os.ST_RDONLY:
            return "read-only"
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return "yes" if os.access(place, os.W_OK) else "denied"
        return "selinux" if enforcing and error.errno == errno.EACCES else "denied"


def iptables(module: AnsibleModule) -> dict[str, object]:
    """Which backend `iptables` is, which hold rules, and which of them hold those of Kubernetes."""
    holding, kubernetes = [], []
    for backend in BACKENDS:
        for stem in ("iptables", "ip6tables"):
            program = shutil.which(f"{stem}-{backend}-save", path=PATH)
            if program is None or (backend == "legacy" and not legacy_in_use(stem)):
                continue
            _, rules, _ = module.run_command([program])
            if any(line.startswith("-A") for line in rules.splitlines()):
                holding.append(backend)
                if KUBERNETES.search(rules):
                    kubernetes.append(backend)
    program = shutil.which("iptables", path=PATH)
    said = module.run_command([program, "--version"])[1] if program else ""
    version = re.search(r"v(\d[\d.]*)", said)
    return {
        "command": ("nft" if "nf_tables" in said else "legacy") if program else "",
        "version": version.group(1) if version else "",
        "holding": [one for one in BACKENDS if one in holding],
        "kubernetes": [one for one in BACKENDS if one in kubernetes],
    }


def legacy_in_use(stem: str) -> bool:
    """Asking a table of the old backend for its rules makes the table: only those that are there are asked."""
    names = f"/proc/net/{'ip' if stem == 'iptables' else 'ip6'}_tables_names"
    try:
        return bool(Path(names).read_text().split())
    except OSError:
        return False


def firewalls(module: AnsibleModule) -> dict[str, object]:
    """Which firewalls are at work, and the chains of nftables that drop what nothing accepts."""
    found: dict[str, object] = {"ufw": False, "firewalld": False, "nftables": []}
    if program := shutil.which("ufw", path=PATH):
        found["ufw"] = "Status: active" in module.run_command([program, "status"])[1]
    if program := shutil.which("firewall-cmd", path=PATH):
        found["firewalld"] = module.run_command([program, "--state"])[0] == 0
    if program := shutil.which("nft", path=PATH):
        code, text, _ = module.run_command([program, "--json", "list", "chains"])
        listed = module.from_json(text).get("nftables", []) if code == 0 and text.strip() else []
        chains = [each["chain"] for each in listed if "chain" in each]
        found["nftables"] = [
            f"{chain['family']} {chain['table']} {chain['name']} {chain['hook']}"
            for chain in chains
            if chain.get("policy") == "drop" and chain.get("hook") in ("input", "forward")
        ]
    return found


def synchronised(module: AnsibleModule) -> dict[str, object]:
    """Whether a daemon keeps the time, which one, and how far off it says the clock is."""
    if program := shutil.which("chronyc", path=PATH):
        code, text, _ = module.run_command([program, "-c", "tracking"])
        fields = text.strip().split(",")
        if code == 0 and len(fields) > 13:
            in_step = fields[13] != "Not synchronised"
            return {"by": "chrony", "synchronised": in_step, "offSeconds": abs(float(fields[4]))}
    if program := shutil.which("timedatectl", path=PATH):
        code, text, _ = module.run_command([program, "show", "--property", "NTPSynchronized", "--value"])
        if code == 0:
            return {"by": "timedatectl", "synchronised": text.strip() == "yes", "offSeconds": None}
    return {"by": "", "synchronised": False, "offSeconds": None}


def ask(url: str, timeout: float) -> dict[str, object]:
    """How far this clock is behind the API server's: its answer's Date, whatever its status, and how sure that is.

    Nothing secret is sent and nothing but a clock's reading believed, so the server's certificate is not checked: a
    clock that is wrong would refuse it first.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    proxies = urllib.request.ProxyHandler({})
    opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))
    sent, began = time.time(), time.monotonic()
    try:
        with opener.open(f"{url.rstrip('/')}/version", timeout=timeout) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return {"reason": "timed out" if isinstance(reason, (socket.timeout, TimeoutError)) else str(reason)}
    took = time.monotonic() - began
    parsed = email.utils.parsedate_to_datetime(date) if date else None
    if parsed is None:
        return {"reason": "its answer has no Date"}
    # A Date is cut to seconds: it was made somewhere in the second after it, and somewhere between question and answer.
    middle = parsed.timestamp() + 0.5 - (sent + took / 2)
    return {"reason": "", "skewSeconds": round(middle, 3), "uncertaintySeconds": round(0.5 + took / 2, 3)}


def taken(ports: list[int], uids: list[int]) -> list[dict[str, object]]:
    """The ports that somebody else listens on, each with the process."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == LISTEN and port in ports and int(fields[7]) not in uids:
                found[port] = fields[9]
    owners = listeners(set(found.values())) if found else {}
    return [{"port": port, "by": owners.get(inode, "a process of another namespace")} for port, inode in found.items()]


def listeners(inodes: set[str]) -> dict[str, str]:
    """The processes that hold sockets."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for descriptor in (process / "fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    found[target[8:-1]] = f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "uids": {"type": "list", "elements": "int", "default": []},
            "api_url": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    given = module.params
    mode = selinux()
    state = {
        "uid": os.geteuid(),
        "distribution": distribution(os_release()),
        "selinux": mode,
        "paths": {path: writable(path, mode == "enforcing") for path in given["paths"]},
        "iptables": iptables(module),
        "firewalls": firewalls(module),
        "synchronised": synchronised(module),
        "clock": {"url": given["api_url"], **(ask(given["api_url"], given["timeout"]) if given["api_url"] else {})},
        "taken": taken(given["ports"], given["uids"]),
        "processors": os.cpu_count() or 1,
    }
    module.exit_json(changed=False, state=state)


if __name__ == "__main__":
    main()
