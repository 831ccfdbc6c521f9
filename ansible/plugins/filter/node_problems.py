# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""What a machine's state means to the mesh: pure. Facts and wishes in, problems out: what was found, why, the way out.

A problem stops the machine before anything on it was changed; a warning is only told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DOCUMENTATION = r"""
name: node_problems
short_description: What keeps a machine out of the mesh
version_added: "0.1.0"
description:
  - Says what was found at a machine that the mesh cannot live with, why it matters and what to do about it.
options:
  _input:
    description: The facts that the role C(node) has gathered.
    type: dict
    required: true
  wanted:
    description:
      - C(requirements) as C(tulle config node-requirements) gives them, C(needed) (features that no node can do
        without), C(skew) in seconds, C(mixed) (C(refuse) or C(accept)), C(networks) of pods that are let through, and
        C(manage), whether what is too low or not loaded will be mended or is itself a problem.
    type: dict
    required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Say what is wrong
  ansible.builtin.debug:
    msg: "{{ facts | tulle.mesh.node_problems({'needed': ['iptables_redirect'], 'skew': 5}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(problems) and C(warnings), each a list of C(name), C(found), C(why) and C(remedy), and C(message), which is all
      problems in words.
  type: dict
"""

KNOWN = "Debian, Ubuntu, RHEL and its like, SUSE"
BROKEN_IPTABLES = ("1.8.0", "1.8.1", "1.8.2", "1.8.3", "1.8.4")
Told = dict[str, str]
Some = Mapping[str, Any]


def told(name: str, found: str, why: str, remedy: str) -> Told:
    return {"name": name, "found": found, "why": why, "remedy": remedy}


def rights(facts: Some) -> Iterator[Told]:
    if facts["uid"] != 0:
        yield told(
            "rights",
            f"not root (uid {facts['uid']})",
            "a node's kernel and processes need it",
            "run the same command as root ('sudo -E' keeps your folders), or let Ansible become it",
        )


def distribution(facts: Some) -> Iterator[Told]:
    found = facts["distribution"]
    if not found["family"]:
        yield told(
            "distribution",
            f"the distribution {found['name']} (ID={found['id']}) is not one of {KNOWN}",
            "packages, firewall and boot files have other names there, and a guess would leave half a node",
            "if it is like one of them, say so with ID_LIKE in /etc/os-release; else prepare the node by hand from "
            "'tulle config node-requirements' and leave it out of the inventory",
        )


def files(facts: Some, wanted: Some) -> Iterator[Told]:
    """A root that cannot be written to is no problem of a machine where there is nothing to write."""
    pending = [f"{name} = {value}" for name, value in sorted(facts["low"].items())]
    pending += [f"modprobe {name}" for names in facts["loadable"].values() for name in names]
    needs = {each["path"]: each["why"] for each in wanted.get("requirements", {}).get("paths", [])}
    for path, state in sorted(facts["paths"].items()):
        if state == "yes" or (path not in needs and not pending):
            continue
        why = "what is set would be gone with the next boot, and pods of this node would lose their redirection"
        lines = "" if path in needs else f" ({'; '.join(pending)})"
        if state == "read-only":
            found, remedy = f"{path} is on a read-only file system", f"put it into the machine's image{lines}"
        elif state == "selinux":
            found = f"SELinux (enforcing) forbids root to write to {path}, whose file system is writable"
            remedy = f"see 'ausearch -m avc -ts recent', and run 'restorecon -RF {path}'"
        else:
            found, remedy = f"root cannot write to {path}", "look at its attributes ('lsattr -d') and its mount"
        yield told("files", found, needs.get(path, why), remedy)


def kernel(facts: Some, wanted: Some) -> Iterator[Told]:
    """Features that are missing and that no module of this machine brings; with nothing to be mended, any missing."""
    reasons = {each["feature"]: each["why"] for each in wanted.get("requirements", {}).get("kernel", [])}
    mends = wanted.get("manage", True)
    for name in sorted({*wanted.get("needed", []), *reasons}):
        if name not in facts["complaints"] or (mends and (name in facts["loadable"] or name in facts["unprobed"])):
            continue
        modules = ", ".join(facts["modules"].get(name, [])) or name
        remedy = f"install or boot a kernel that has the modules {modules} (RHEL and its like: kernel-modules-extra)"
        if name in facts["loadable"] or name in facts["unprobed"]:
            remedy = "run the playbook site, which loads modules and installs tools"
        yield told(
            "kernel",
            f"the kernel has no {name}: {facts['complaints'][name]}",
            reasons.get(name, "a pod's connections cannot be redirected to its proxy without it"),
            remedy,
        )


def settings(facts: Some, wanted: Some) -> Iterator[Told]:
    """Settings that are too low: only where nobody is about to raise them."""
    if wanted.get("manage", True):
        return
    reasons = {each["name"]: each["why"] for each in wanted.get("requirements", {}).get("settings", [])}
    for name, least in sorted(facts["low"].items()):
        why = reasons.get(name, "a node with many meshed pods reaches it, and then drops connections")
        yield told("setting", f"{name} is lower than {least}", why, "run the playbook site, which raises it")


def backends(facts: Some, wanted: Some) -> Iterator[Told]:
    found = facts["iptables"]
    if len(found["holding"]) > 1 and wanted.get("mixed", "refuse") == "refuse":
        kube = f"; those of Kubernetes are in {' and '.join(found['kubernetes'])}" if found["kubernetes"] else ""
        keep = (found["kubernetes"] or [found["command"] or "nft"])[0]
        other = "legacy" if keep == "nft" else "nft"
        yield told(
            "iptables",
            f"iptables-nft and iptables-legacy both hold rules{kube}",
            "each set is in force and hides from the other's tools, so rules that nobody sees can drop a Service's "
            "packets or send them astray",
            f"see 'iptables-{other}-save', move what is needed to iptables-{keep}, reboot; or let it be with "
            "node_iptables_mixed=accept: pods have rules of their own",
        )


def clock(facts: Some, wanted: Some) -> Iterator[Told]:
    asked, kept = facts["clock"], facts["synchronised"]
    most = wanted["skew"]
    why = f"certificates are valid from {most:g} s before they are made: a clock further off refuses every peer"
    remedy = "set it right ('chronyc makestep', or 'timedatectl set-ntp true') and keep it so with chrony"
    if asked.get("reason"):
        yield told(
            "cluster",
            f"the API server {asked['url']} does not answer: {asked['reason']}",
            "kubelet and proxies of this machine get pods, addresses and certificates through it, and its clock counts",
            "see that a route and a firewall let this machine reach it, or correct node_api_url",
        )
    elif "skewSeconds" in asked and abs(asked["skewSeconds"]) - asked["uncertaintySeconds"] > most:
        side = "behind" if asked["skewSeconds"] > 0 else "ahead of"
        yield told("clock", f"the clock is {abs(asked['skewSeconds']):.0f} s {side} the API server's", why, remedy)
    elif "skewSeconds" not in asked and kept["offSeconds"] is not None and kept["offSeconds"] > most:
        yield told("clock", f"{kept['by']} says that the clock is off by {kept['offSeconds']:g} s", why, remedy)
    elif "skewSeconds" not in asked and wanted.get("requirements") and not kept["synchronised"]:
        yield told(
            "clock",
            "nobody knows whether the clock is right: no API server was named, and no time daemon is in step",
            why,
            "name the API server with node_api_url (https://ADDRESS:6443), or run chrony",
        )


def ports(facts: Some) -> Iterator[Told]:
    for each in facts["taken"]:
        yield told(
            "port",
            f"port {each['port']} is taken by {each['by']}",
            "the proxy listens there, and what comes to it would reach somebody else",
            "stop that, or have it listen elsewhere",
        )


def warnings(facts: Some, wanted: Some) -> Iterator[Told]:
    found = facts["iptables"]
    if not facts["synchronised"]["synchronised"]:
        by = facts["synchronised"]["by"]
        yield told(
            "time",
            f"{by} is not in step" if by else "no time daemon was found (chrony, systemd-timesyncd)",
            "a clock that nobody keeps will drift until certificates fail",
            "run chrony",
        )
    if len(found["holding"]) > 1 and wanted.get("mixed") == "accept":
        yield told(
            "iptables",
            "iptables-nft and iptables-legacy both hold rules",
            "each is in force and hides from the other; pods are not affected, their rules are in their own namespaces",
            "move them to one",
        )
    if found["version"] in BROKEN_IPTABLES and found["command"] == "nft":
        yield told(
            "iptables",
            f"iptables {found['version']} (nft)",
            "versions 1.8.0 to 1.8.4 are known to duplicate or miss rules",
            "install a later one",
        )
    active = [name for name in ("ufw", "firewalld") if facts["firewalls"][name]] + facts["firewalls"]["nftables"]
    if active and not wanted.get("networks"):
        yield told(
            "firewall",
            f"a firewall is at work ({', '.join(active)})",
            "it may drop what pods of different nodes say to each other",
            "name the cluster's pod networks with node_pod_networks to have them let through",
        )


def problems(facts: Some, wanted: Some) -> dict[str, Any]:
    """Everything that is wrong: what stops a machine apart from what is only told, and the first in words."""
    # Without the rights nothing else could be tried, and what was found says little.
    found = list(rights(facts)) or [
        *distribution(facts),
        *kernel(facts, wanted),
        *settings(facts, wanted),
        *files(facts, wanted),
        *backends(facts, wanted),
        *clock(facts, wanted),
        *ports(facts),
    ]
    message = "; ".join(
        f"{each['found']}. Why it matters: {each['why']}. What to do: {each['remedy']}" for each in found
    )
    return {"problems": found, "warnings": list(warnings(facts, wanted)), "message": message}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"node_problems": problems}
