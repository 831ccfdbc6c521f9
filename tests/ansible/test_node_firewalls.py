"""What the role `node` opens in the firewall of a machine, and shuts again."""

import subprocess

import pytest

from tests.ansible.roots import may_make_roots, prove, root
from tests.ansible.test_node import LOW
from tests.kit import debian

pytestmark = pytest.mark.skipif(bool(may_make_roots()), reason=may_make_roots() or "runs")

DROPPING = """
flush ruleset
table inet company {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established accept
    }
}
"""


def test_openings_in_nftables_survive_a_boot_and_go_again() -> None:
    with root("walled") as machine:
        machine.run(LOW)
        machine.write("/etc/nftables.conf", DROPPING)
        machine.run("nft -f /etc/nftables.conf")
        settings = {"node_pod_networks": ["10.86.0.0/16", "10.99.0.0/16", "fd00:1::/64"]}

        def opened() -> None:
            rules = machine.run("nft list chain inet company forward").stdout
            assert "ip saddr { 10.86.0.0/16, 10.99.0.0/16 }" in rules
            assert rules.index("fd00:1::/64") < rules.index("ct state")
            before = machine.run("nft -s list ruleset").stdout
            machine.run("nft flush ruleset; nft -f /etc/nftables.conf")
            assert machine.run("nft -s list ruleset").stdout == before

        prove(machine, "node", settings, meanwhile=opened)


def test_openings_in_ufw_go_again() -> None:
    with root("guarded") as machine:
        machine.run(LOW)
        archive = debian.package("ufw").read_bytes()
        subprocess.run(machine.command("sh", "-c", "cat >/tmp/ufw.deb"), input=archive, check=True, timeout=60)
        machine.run("DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/ufw.deb && ufw --force enable")
        # Its files as it writes them itself, and not as its package has them.
        machine.run("ufw allow 1/tcp; ufw delete allow 1/tcp")
        # ufw sets this one to 0, and the kernel back to 1 whenever forwarding is switched.
        machine.run("echo 1 > /proc/sys/net/ipv4/conf/all/accept_redirects")
        settings = {"node_pod_networks": ["10.86.0.0/16", "fd00:1::/64"]}

        def opened() -> None:
            rules = machine.run("iptables -S ufw-user-forward; ip6tables -S ufw6-user-forward").stdout
            assert "-A ufw-user-forward -s 10.86.0.0/16 -d 10.86.0.0/16 -p tcp -j ACCEPT" in rules
            assert "-A ufw6-user-forward -s fd00:1::/64 -d fd00:1::/64 -p tcp -j ACCEPT" in rules

        prove(machine, "node", settings, meanwhile=opened)
