#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Ask the kernel what it can do by having it done where nobody sees it, and load modules only for what it cannot."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kernel_features
short_description: Probe kernel features by function, and load modules only where one is missing
version_added: "0.1.0"
description:
  - Runs each probe in a network namespace that is thrown away. A feature that works needs no module, whether it is
    built in or loaded already; for one that does not, each of its modules is tried, and the probe is run again.
options:
  probes:
    description: The features, and how each is tried.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the feature in the result.
        type: str
        required: true
      command:
        description: A shell command that succeeds where the feature works.
        type: str
      path:
        description: A file that is there where the feature works, for what a fresh namespace does not show.
        type: path
      modules:
        description: The kernel modules that may bring it; kernels have their own choice of these.
        type: list
        elements: str
        default: []
  load:
    description: Whether to load modules; without it, it is only said which features are missing.
    type: bool
    default: true
  persist:
    description: The file that has the loaded modules loaded at boot. It is only ever added to.
    type: path
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: See to it that bridges pass through netfilter
  tulle.mesh.kernel_features:
    probes:
      - name: bridge_netfilter
        path: /proc/sys/net/bridge/bridge-nf-call-iptables
        modules: [br_netfilter]
    persist: /etc/modules-load.d/example.conf
"""

RETURN = r"""
features:
  description: For each probe, whether it works.
  type: dict
  returned: always
complaints:
  description: For each feature that is missing, what its probe said.
  type: dict
  returned: always
loadable:
  description: For each feature that is missing, the modules that this machine has for it and that are not loaded.
  type: dict
  returned: always
unprobed:
  description: The features that are missing because the program that tries them is.
  type: list
  elements: str
  returned: always
loaded:
  description: The modules that were loaded in this run.
  type: list
  elements: str
  returned: always
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule

# Administrators' tools are in sbin, which is not on every user's path.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(module: AnsibleModule) -> dict[str, str]:
    """The features that do not work, each with what its probe said."""
    found = {}
    for probe in module.params["probes"]:
        if lacking := program(probe):
            found[probe["name"]] = f"{lacking} is not installed"
        elif probe["command"]:
            command = ["unshare", "--net", "sh", "-ec", probe["command"]]
            code, _, complaint = module.run_command(command, environ_update={"PATH": PATH})
            if code != 0:
                found[probe["name"]] = complaint.strip() or f"{probe['command']}: ended with {code}"
        elif not os.path.exists(probe["path"]):
            found[probe["name"]] = f"{probe['path']} is not there"
    return found


def program(probe: dict[str, str]) -> str:
    """The program that a probe needs and that is not there; empty if it can be run."""
    needed = ["unshare", probe["command"].split()[0]] if probe["command"] else []
    return next((name for name in needed if shutil.which(name, path=PATH) is None), "")


def loadable(module: AnsibleModule, names: list[str]) -> list[str]:
    """Which of some modules this machine has, and has not loaded."""
    modprobe = shutil.which("modprobe", path=PATH)
    there = loaded_modules()
    return [
        name
        for name in names
        if modprobe is not None
        and name not in there
        and module.run_command([modprobe, "--dry-run", "--first-time", "--quiet", name])[0] == 0
    ]


def load(module: AnsibleModule, names: list[str]) -> list[str]:
    modprobe = module.get_bin_path("modprobe", opt_dirs=PATH.split(":"))
    if modprobe is None:
        # A machine whose kernel has everything built in needs no such command.
        return []
    before = loaded_modules()
    for name in names:
        # Kernels have their own choice of these: whether it was enough is asked of the probes.
        module.run_command([modprobe, "--quiet", name])
    return sorted(loaded_modules() - before)


def loaded_modules() -> set[str]:
    try:
        with open("/proc/modules", encoding="ascii") as file:
            return {line.split()[0] for line in file}
    except FileNotFoundError:
        return set()


def persist(path: str, names: list[str]) -> None:
    known: list[str] = []
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            known = file.read().split()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(f"{name}\n" for name in sorted({*known, *names})))


def main() -> None:
    probe = {
        "name": {"type": "str", "required": True},
        "command": {"type": "str"},
        "path": {"type": "path"},
        "modules": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": probe,
                "mutually_exclusive": [["command", "path"]],
                "required_one_of": [["command", "path"]],
            },
            "load": {"type": "bool", "default": True},
            "persist": {"type": "path"},
        },
        supports_check_mode=True,
    )
    complaints = missing(module)
    loaded: list[str] = []
    if complaints and module.params["load"] and not module.check_mode:
        wanted = [name for one in module.params["probes"] if one["name"] in complaints for name in one["modules"]]
        loaded = load(module, list(dict.fromkeys(wanted)))
        if loaded and module.params["persist"]:
            persist(module.params["persist"], loaded)
        complaints = missing(module)
    probes = [one for one in module.params["probes"] if one["name"] in complaints]
    found = {one["name"]: loadable(module, one["modules"]) for one in probes}
    features = {one["name"]: one["name"] not in complaints for one in module.params["probes"]}
    module.exit_json(
        changed=bool(loaded),
        features=features,
        complaints=complaints,
        loadable={name: names for name, names in found.items() if names},
        unprobed=[one["name"] for one in probes if program(one)],
        loaded=loaded,
    )


if __name__ == "__main__":
    main()
