"""What a machine's state means: by value, for what cannot be produced on the machine that runs the tests."""

import copy
from typing import Any

import pytest

from tests.ansible.kit import load

node_problems = load("plugins/filter/node_problems.py")
nodes_report = load("plugins/filter/nodes_report.py")
node_state = load("plugins/modules/node_state.py")
openings = load("plugins/modules/firewall_openings.py")

FACTS: dict[str, Any] = {
    "uid": 0,
    "distribution": {"id": "debian", "version": "12", "name": "Debian 12", "family": "Debian"},
    "paths": {"/etc/sysctl.d": "yes", "/opt/cni/bin": "yes"},
    "selinux": "absent",
    "complaints": {},
    "unprobed": [],
    "loadable": {},
    "modules": {"iptables_redirect": ["xt_owner", "xt_REDIRECT"]},
    "low": {},
    "iptables": {"command": "nft", "version": "1.8.9", "holding": ["nft"], "kubernetes": ["nft"]},
    "firewalls": {"ufw": False, "firewalld": False, "nftables": []},
    "synchronised": {"by": "chrony", "synchronised": True, "offSeconds": 0.001},
    "clock": {"url": "https://a:6443", "reason": "", "skewSeconds": 0.2, "uncertaintySeconds": 0.6},
    "taken": [],
}
WANTED: dict[str, Any] = {
    "needed": ["iptables_redirect"],
    "requirements": {"paths": [{"path": "/opt/cni/bin", "why": "the plugin is there"}]},
    "skew": 20.0,
    "mixed": "refuse",
    "manage": True,
    "networks": [],
}


def judged(wanted: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    for key, value in changes.items():
        facts[key] = {**facts[key], **value} if isinstance(value, dict) and key != "low" else value
    found: dict[str, Any] = node_problems.problems(facts, {**WANTED, **(wanted or {})})
    return found


def only(found: dict[str, Any], kind: str = "problems") -> dict[str, str]:
    (one,) = found[kind]
    assert set(one) == {"name", "found", "why", "remedy"}
    return dict(one)


def test_a_good_machine_has_nothing_said_of_it() -> None:
    assert judged() == {"problems": [], "warnings": [], "message": ""}


class TestFiles:
    """A root that cannot be written to, and why."""

    LOW = {"net.ipv4.ip_forward": 1}

    def test_selinux_and_read_only_are_told_apart(self) -> None:
        sealed = only(judged(paths={"/etc/sysctl.d": "read-only"}, low=self.LOW))
        assert sealed["found"] == "/etc/sysctl.d is on a read-only file system"
        assert "image (net.ipv4.ip_forward = 1)" in sealed["remedy"]
        labelled = only(judged(paths={"/etc/sysctl.d": "selinux"}, low=self.LOW))
        assert (
            "SELinux (enforcing) forbids root to write to /etc/sysctl.d, whose file system is writable"
            in labelled["found"]
        )
        assert "restorecon" in labelled["remedy"]
        assert "lsattr" in only(judged(paths={"/etc/sysctl.d": "denied"}, low=self.LOW))["remedy"]

    def test_nothing_to_write_is_no_problem_but_a_path_of_the_mesh_is(self) -> None:
        assert judged(paths={"/etc/sysctl.d": "read-only"})["problems"] == []
        assert only(judged(paths={"/opt/cni/bin": "read-only"}))["why"] == "the plugin is there"


class TestKernel:
    """A feature that is missing."""

    LACKS = {"iptables_redirect": "Extension owner is not supported"}

    def test_what_a_module_may_bring_is_mended_else_refused(self) -> None:
        assert judged(complaints=self.LACKS, loadable={"iptables_redirect": ["xt_owner"]})["problems"] == []
        assert judged(complaints=self.LACKS, unprobed=["iptables_redirect"])["problems"] == []
        lost = only(judged(complaints=self.LACKS))
        assert "the kernel has no iptables_redirect: Extension owner" in lost["found"]
        assert "xt_owner, xt_REDIRECT" in lost["remedy"]

    def test_where_nothing_is_mended_it_is_a_problem_in_any_case(self) -> None:
        looking = {"manage": False}
        found = judged(looking, complaints=self.LACKS, loadable={"iptables_redirect": ["xt_owner"]})
        assert "run the playbook site" in only(found)["remedy"]
        assert (
            only(judged(looking, low={"net.core.somaxconn": 4096}))["found"] == "net.core.somaxconn is lower than 4096"
        )

    def test_what_the_stack_asks_counts(self) -> None:
        asked = {"requirements": {"kernel": [{"feature": "ip6tables_redirect", "why": "proxy.ipv6"}]}}
        assert only(judged(asked, complaints={"ip6tables_redirect": "no"}))["why"] == "proxy.ipv6"
        assert judged(complaints={"ip6tables_redirect": "no"})["problems"] == []


class TestClock:
    """The clock beside the API server's."""

    @pytest.mark.parametrize(("skew", "side"), [(90.0, "90 s behind"), (-90.0, "90 s ahead of")])
    def test_it_is_off(self, skew: float, side: str) -> None:
        assert only(judged(clock={"skewSeconds": skew}))["found"] == f"the clock is {side} the API server's"

    def test_only_what_is_sure_is_refused(self) -> None:
        assert judged(clock={"skewSeconds": 20.5})["problems"] == []
        assert judged(clock={"skewSeconds": 20.7})["problems"] != []

    def test_without_a_server_the_daemon_is_asked(self) -> None:
        facts = copy.deepcopy(FACTS)
        facts["clock"] = {"url": ""}
        assert node_problems.problems(facts, WANTED)["problems"] == []
        facts["synchronised"]["offSeconds"] = 31.0
        assert only(node_problems.problems(facts, WANTED))["found"] == "chrony says that the clock is off by 31 s"
        facts["synchronised"] = {"by": "", "synchronised": False, "offSeconds": None}
        found = node_problems.problems(facts, WANTED)
        assert "nobody knows whether the clock is right" in only(found)["found"]
        assert only(found, "warnings")["name"] == "time"
        # Nobody asks of a machine of one's own what no stack has asked.
        assert node_problems.problems(facts, {**WANTED, "requirements": {}})["problems"] == []

    def test_a_missing_time_daemon_only_warns(self) -> None:
        found = judged(synchronised={"by": "", "synchronised": False, "offSeconds": None})
        assert found["problems"] == []
        assert only(found, "warnings")["found"].startswith("no time daemon")

    def test_a_server_that_is_silent(self) -> None:
        silent = only(judged(clock={"reason": "timed out", "skewSeconds": 0.0}))
        assert silent["found"] == "the API server https://a:6443 does not answer: timed out"


def test_rights_come_alone() -> None:
    found = only(judged(uid=1000, taken=[{"port": 4143, "by": "x (pid 1)"}]))
    assert "run the same command as root ('sudo -E' keeps your folders)" in found["remedy"]


def test_a_firewall_and_an_old_iptables_are_told() -> None:
    assert "name the cluster's pod networks" in only(judged(firewalls={"ufw": True}), "warnings")["remedy"]
    assert judged({"networks": ["10.0.0.0/8"]}, firewalls={"ufw": True})["warnings"] == []
    assert only(judged(iptables={"version": "1.8.3"}), "warnings")["found"] == "iptables 1.8.3 (nft)"


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID=debian\nVERSION_ID="12"', "Debian"),
        ("ID=ubuntu\nID_LIKE=debian", "Debian"),
        ('ID="linuxmint"\nID_LIKE="ubuntu debian"', "Debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "RedHat"),
        ("ID=fedora", "RedHat"),
        ('ID="sles"\nID_LIKE="suse"', "Suse"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "Suse"),
        ("ID=opensuse-tumbleweed", "Suse"),
        ("ID=arch", ""),
        ("ID=alpine", ""),
        ("", ""),
    ],
)
def test_distributions_are_known_by_what_they_say(text: str, family: str) -> None:
    assert node_state.distribution(text)["family"] == family


def test_openings_of_each_firewall() -> None:
    networks = openings.by_version(["10.1.0.0/16", "10.0.0.0/16", "fd00::/64"])
    assert networks == {4: ["10.0.0.0/16", "10.1.0.0/16"], 6: ["fd00::/64"]}
    ufw = [" ".join(each) for each in openings.for_ufw(networks)]
    assert "ufw route allow from 10.0.0.0/16 to 10.1.0.0/16 proto tcp" in ufw
    assert len(ufw) == 5
    firewalld = openings.for_firewalld(networks)
    assert ["firewall-cmd", "--zone=trusted", "--permanent", "--add-source=fd00::/64"] in firewalld
    assert ["firewall-cmd", "--zone=trusted", "--add-source=fd00::/64"] in firewalld
    chains = [("inet", "t", "forward"), ("ip", "filter", "FORWARD"), ("bridge", "b", "f")]
    rules = [" ".join(each[:8]) for each in openings.for_nftables(chains, networks)]
    assert rules == [
        "nft insert rule inet t forward ip saddr",
        "nft insert rule inet t forward ip6 saddr",
        "nft insert rule ip filter FORWARD ip saddr",
    ]
    with pytest.raises(ValueError, match="host bits set"):
        openings.by_version(["10.0.0.1/16"])


def test_a_node_that_failed_is_in_the_report() -> None:
    hosts: dict[str, Any] = {"lost": {}, "broken": {"mesh_failure": "no python"}}
    found = nodes_report.report(hosts, ["lost", "broken"], {"hash": "sha256:1"}, "prod", "2026-03-04T11:00:00Z")
    assert found["requirements"] == "sha256:1"
    assert "it cannot be reached" in found["nodes"]["lost"]["message"]
    assert "it could not be looked at: no python" in found["nodes"]["broken"]["message"]
