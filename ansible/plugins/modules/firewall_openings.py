#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Let pods of different nodes through a machine's firewall: ufw, firewalld, or chains of nftables that drop."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: firewall_openings
short_description: Let what pods say to each other through a machine's firewall
version_added: "0.1.0"
description:
  - Finds the firewall that is at work, and has it forward TCP between the networks that are named, now and after a
    boot. A machine without one is left alone.
  - Writes down what it has added, so that undoing it takes away that and nothing else.
options:
  networks:
    description: The pods' networks.
    type: list
    elements: str
    default: []
  state:
    description: Whether the openings are there, or are taken away.
    type: str
    choices: [present, absent]
    default: present
  record:
    description: The file that says what was added.
    type: path
    default: /var/lib/tulle/firewall.json
  boot:
    description: The files that nftables may load at boot; the first that is there gets the openings included.
    type: list
    elements: path
    default: [/etc/nftables.conf, /etc/sysconfig/nftables.conf]
  include:
    description: The file of the openings for nftables.
    type: path
    default: /etc/nftables.d/tulle.nft
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Let pods through
  tulle.mesh.firewall_openings:
    networks: [10.244.0.0/16]
"""

RETURN = r"""
openings:
  description: What the firewall is asked to let through, as command lines.
  type: list
  elements: str
  returned: always
persisted:
  description: Whether they are there after a boot too.
  type: bool
  returned: always
"""

import hashlib
import ipaddress
import json
import os
import re
import shlex
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Commands = list[list[str]]


def by_version(networks: list[str]) -> dict[int, list[str]]:
    """The networks in their usual form, apart by IP version; raises ValueError."""
    parsed = [ipaddress.ip_network(each) for each in networks]
    return {version: sorted(str(each) for each in parsed if each.version == version) for version in (4, 6)}


def for_ufw(networks: dict[int, list[str]]) -> Commands:
    """ufw has a rule for each pair; its own list of them is spelt the same."""
    pairs = [(one, other) for same in networks.values() for one in same for other in same]
    return [["ufw", "route", "allow", "from", one, "to", other, "proto", "tcp"] for one, other in pairs]


def for_firewalld(networks: dict[int, list[str]]) -> Commands:
    """Pods' networks become sources of the zone `trusted`, now and at boot."""
    names = [name for same in networks.values() for name in same]
    zone = ["firewall-cmd", "--zone=trusted"]
    return [[*zone, *boot, f"--add-source={name}"] for name in names for boot in ([], ["--permanent"])]


def for_nftables(chains: list[tuple[str, str, str]], networks: dict[int, list[str]]) -> Commands:
    """A rule at the head of each chain that drops: accepted elsewhere, a packet would still be dropped there."""
    found = []
    for family, table, chain in chains:
        for version, same in networks.items():
            word = "ip" if version == 4 else "ip6"
            if same and family in ("inet", word):
                among = f"{{ {', '.join(same)} }}"
                match = [word, "saddr", among, word, "daddr", among, "meta", "l4proto", "tcp", "accept"]
                mark = f'"{marked(family, table, chain, *same)}"'
                found.append(["nft", "insert", "rule", family, table, chain, *match, "comment", mark])
    return found


def marked(*parts: str) -> str:
    """The comment by which a rule is found again, whatever form nft shows it in."""
    return f"tulle {hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


class Machine:
    """The firewall of this machine."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def ask(self, command: list[str]) -> tuple[int, str]:
        program = shutil.which(command[0], path=PATH)
        if program is None:
            return 127, ""
        code, out, complaint = self.module.run_command([program, *command[1:]], environ_update={"LC_ALL": "C"})
        return code, out + complaint

    def do(self, command: list[str]) -> None:
        code, said = self.ask(command)
        if code:
            way = "open it by hand, and set node_manage_firewall=false"
            self.module.fail_json(msg=f"{shlex.join(command)}: {said.strip()}; {way}")

    def kind(self) -> str:
        if "Status: active" in self.ask(["ufw", "status"])[1]:
            return "ufw"
        if self.ask(["firewall-cmd", "--state"])[0] == 0:
            return "firewalld"
        return "nftables" if self.dropping() else ""

    def dropping(self) -> list[tuple[str, str, str]]:
        code, text = self.ask(["nft", "--json", "list", "chains"])
        listed = json.loads(text).get("nftables", []) if code == 0 and text.strip() else []
        chains = [each["chain"] for each in listed if "chain" in each]
        drops = [each for each in chains if each.get("policy") == "drop" and each.get("hook") == "forward"]
        return [(each["family"], each["table"], each["name"]) for each in drops]

    def wanted(self, kind: str, networks: dict[int, list[str]]) -> Commands:
        if kind == "ufw":
            return for_ufw(networks)
        return for_firewalld(networks) if kind == "firewalld" else for_nftables(self.dropping(), networks)

    def has(self, command: list[str]) -> bool:
        """Whether an opening is there already."""
        if command[0] == "ufw":
            return shlex.join(command) in self.ask(["ufw", "show", "added"])[1].splitlines()
        if command[0] == "firewall-cmd":
            return self.ask([each.replace("--add-source", "--query-source") for each in command])[0] == 0
        return bool(self.handles(command))

    def handles(self, command: list[str]) -> list[str]:
        text = self.ask(["nft", "--handle", "list", "chain", *command[3:6]])[1]
        return re.findall(rf"comment {re.escape(command[-1])} # handle (\d+)", text)

    def take_away(self, command: list[str]) -> None:
        if command[0] == "ufw":
            self.do(["ufw", "route", "delete", *command[2:]])
        elif command[0] == "firewall-cmd":
            self.do([each.replace("--add-source", "--remove-source") for each in command])
        else:
            for handle in self.handles(command):
                self.do(["nft", "delete", "rule", *command[3:6], "handle", handle])


def recorded(path: str) -> Commands:
    try:
        found: Commands = json.loads(Path(path).read_text())
    except FileNotFoundError:
        return []
    return found


def boot_file(paths: list[str]) -> Path | None:
    return next((Path(each) for each in paths if os.path.exists(each)), None)


def keep(path: Path, content: str | None) -> bool:
    """Have a file hold something, or not be there; whether that changed it."""
    now = path.read_text() if path.exists() else None
    if now == content:
        return False
    if content is None:
        path.unlink()
        if path.parent.name in ("tulle", "nftables.d") and not any(path.parent.iterdir()):
            path.parent.rmdir()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return True


def persist(given: dict, rules: Commands) -> tuple[bool, bool]:
    """Have nftables load the openings at boot, after its own rules; whether that changed files, and whether it will."""
    line = f'include "{given["include"]}"\n'
    boot = boot_file(given["boot"])
    if boot is None:
        return keep(Path(given["include"]), None), False
    lines = [each for each in boot.read_text().splitlines(keepends=True) if each != line]
    changed = keep(boot, "".join(lines) + (line if rules else ""))
    text = "".join(f"{' '.join(each[1:])}\n" for each in rules)
    return keep(Path(given["include"]), text or None) or changed, True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "record": {"type": "path", "default": "/var/lib/tulle/firewall.json"},
            "boot": {
                "type": "list",
                "elements": "path",
                "default": ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"],
            },
            "include": {"type": "path", "default": "/etc/nftables.d/tulle.nft"},
        },
        supports_check_mode=True,
    )
    given, machine = module.params, Machine(module)
    try:
        networks = by_version(given["networks"] if given["state"] == "present" else [])
    except ValueError as error:
        module.fail_json(msg=f"networks: {error}; write networks like 10.244.0.0/16")
    kind = machine.kind() if given["state"] == "present" else ""
    wanted = machine.wanted(kind, networks) if kind else []
    known = recorded(given["record"])
    added = [each for each in wanted if not machine.has(each)]
    stale = [each for each in known if each not in wanted]
    changed, persisted = bool(added or stale), True
    if not module.check_mode:
        for command in stale:
            machine.take_away(command)
        for command in added:
            machine.do(command)
        ours = [each for each in known if each in wanted]
        ours += [each for each in added if each not in ours]
        changed |= keep(Path(given["record"]), json.dumps(ours, indent=1) + "\n" if ours else None)
        if known or kind == "nftables":
            rules = [each for each in ours if each[0] == "nft"]
            moved, persisted = persist(given, rules)
            changed |= moved
    module.exit_json(changed=changed, openings=[shlex.join(each) for each in wanted], persisted=persisted)


if __name__ == "__main__":
    main()
