"""The cluster's bridge, its routes and its own netfilter rules: made before the first member, removed after the last.

Pods hang on the bridge, and the node's address is the bridge's, so nothing changes when a laptop changes networks.
"""

import json
import subprocess

from settings import Settings

# Our own table, and kube-proxy's in its nftables mode: each is removed whole, without looking at any other rule.
TABLES = (("ip", "tulle"), ("ip", "kube-proxy"), ("ip6", "kube-proxy"))
MARK = "tulle local cluster"


def run(*argv: str, given: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=False)


def must(*argv: str, given: str | None = None) -> str:
    done = run(*argv, given=given)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def make(settings: Settings) -> None:
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
    for family, table in TABLES:
        run("nft", "delete", "table", family, table)
    for direction in forwarding_rules(settings):
        while run("iptables", "-D", *direction).returncode == 0:
            pass
    remove_host_ports(settings)


def remove_host_ports(settings: Settings) -> None:
    """The port-mapping plugin's chains: ours are those that lead into our pods' subnet; the shared ones go when empty."""
    prefix = settings.gateway.rsplit(".", 1)[0] + "."
    saved = run("iptables-save", "-t", "nat").stdout.splitlines()
    ours = {line.split()[1] for line in saved if line.startswith("-A CNI-DN-") and f"--to-destination {prefix}" in line}
    for line in saved:
        if line.startswith("-A CNI-HOSTPORT-DNAT") and line.split()[-1] in ours:
            subprocess.run(f"iptables -t nat -D {line[3:]}", shell=True, check=False)
    for chain in ours:
        run("iptables", "-t", "nat", "-F", chain)
        run("iptables", "-t", "nat", "-X", chain)


def routes() -> list[dict]:
    return json.loads(run("ip", "-json", "route", "show", "table", "all").stdout or "[]")
