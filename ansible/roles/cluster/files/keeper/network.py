"""The cluster's bridge, its routes and its own netfilter rules: made before the first member, removed after the last.

Pods hang on the bridge, and the node's address is the bridge's, so nothing changes when a laptop changes networks.
"""

import json
import subprocess
from typing import Any

import record
from settings import Settings

# Our own table, and kube-proxy's in its nftables mode: each is removed whole, without looking at any other rule.
OWN_TABLES = (("ip", "tulle"), ("ip", "kube-proxy"), ("ip6", "kube-proxy"))
MARK = "tulle local cluster"


def run(*argv: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=False)


def must(*argv: str, given: str | None = None) -> str:
    done = run(*argv, given=given)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def make(settings: Settings) -> None:
    if record.read(settings, "tables before") is None:
        record.write(settings, "tables before", sorted(tables()))
    bridge = settings.bridge
    if run("ip", "link", "show", bridge).returncode != 0:
        must("ip", "link", "add", bridge, "type", "bridge")
    must("ip", "address", "replace", settings.address, "dev", bridge)
    must("ip", "link", "set", bridge, "up")
    # Without it a machine with no default route could not even ask for a ClusterIP.
    must("ip", "route", "replace", settings.service_subnet, "dev", bridge, "src", settings.gateway)
    must("nft", "-f", "-", given=rules(settings))
    for direction in forwarding_rules(settings):
        if run("iptables", "-C", *direction).returncode != 0 and _drops_forwarded():
            must("iptables", "-I", *direction)


def rules(settings: Settings) -> str:
    """Pods that talk to the outside do so under the machine's own address."""
    return f"""
table ip tulle
delete table ip tulle
table ip tulle {{
  comment "{MARK}"
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {settings.pod_subnet} ip daddr != {{ {settings.pod_subnet}, {settings.service_subnet} }} masquerade
  }}
}}
"""


def forwarding_rules(settings: Settings) -> list[list[str]]:
    """Needed only where a container engine has made dropping the default for forwarded packets."""
    note = ["-m", "comment", "--comment", MARK, "-j", "ACCEPT"]
    return [["FORWARD", side, settings.bridge, *note] for side in ("-i", "-o")]


def _drops_forwarded() -> bool:
    return "-P FORWARD DROP" in run("iptables", "-S", "FORWARD").stdout


def ports_of(bridge: str) -> list[str]:
    # Asked of the kernel, not of /sys: what that shows is the network namespace it was mounted in.
    listed = run("ip", "-json", "link", "show", "master", bridge)
    return sorted(link["ifname"] for link in json.loads(listed.stdout or "[]")) if listed.returncode == 0 else []


def remove(settings: Settings) -> None:
    for port in ports_of(settings.bridge):
        # A pod's namespace may outlive its processes by a moment and take its interface with it.
        run("ip", "link", "delete", port)
    run("ip", "link", "delete", settings.bridge)
    for family, table in OWN_TABLES:
        run("nft", "delete", "table", family, table)
    for direction in forwarding_rules(settings):
        while run("iptables", "-D", *direction).returncode == 0:
            pass
    remove_host_ports(settings)
    before = record.read(settings, "tables before")
    for name, rules_in_it in tables().items():
        # iptables makes a table when it is first asked for anything; one that came with the cluster and is empty goes.
        if before is not None and name not in before and not rules_in_it:
            run("nft", "delete", "table", *name.split())


def remove_host_ports(settings: Settings) -> None:
    """The port-mapping plugin's chains: those that lead to our pods, and the shared ones if nobody else is left."""
    prefix = settings.gateway.rpartition(".")[0] + "."
    saved = nat_rules()
    ours = {line.split()[1] for line in saved if line.startswith("-A CNI-DN-") and f"--to-destination {prefix}" in line}
    undo([line for line in saved if line.startswith("-A CNI-HOSTPORT-DNAT") and line.split()[-1] in ours], ours)
    left = nat_rules()
    if not any(line.startswith("-A CNI-HOSTPORT-DNAT") for line in left):
        shared = {line[1:].split()[0] for line in left if line.startswith(":CNI-HOSTPORT-")}
        undo([line for line in left if line.startswith("-A") and line.split()[-1] in shared], shared)


def nat_rules() -> list[str]:
    return run("iptables-save", "-t", "nat").stdout.splitlines()


def undo(rules_to_delete: list[str], chains: set[str]) -> None:
    """Delete rules and chains of the nat table in one transaction, which is refused whole or done whole."""
    if not chains:
        return
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in sorted(chains))]
    lines += [rule.replace("-A ", "-D ", 1) for rule in rules_to_delete]
    lines += [f"-X {chain}" for chain in sorted(chains)]
    run("iptables-restore", "--noflush", given="\n".join([*lines, "COMMIT", ""]))


def tables() -> dict[str, int]:
    """Every nftables table, and how many rules are in it."""
    listed = json.loads(run("nft", "--json", "list", "ruleset").stdout or '{"nftables": []}')["nftables"]
    found = {f"{one['table']['family']} {one['table']['name']}": 0 for one in listed if "table" in one}
    for rule in (one["rule"] for one in listed if "rule" in one):
        found[f"{rule['family']} {rule['table']}"] += 1
    return found


def routes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("ip", "-json", "route", "show", "table", "all").stdout or "[]")
    return found
