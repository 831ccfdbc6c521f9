"""The redirect rules in a real kernel: two network namespaces joined by a veth pair stand for a pod and its
neighbour.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

BACKENDS = ("nft", "legacy")
UID = 2102

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED LOUDLY: network namespaces need root"),
    pytest.mark.skipif(
        not shutil.which("iptables-nft-restore") or not shutil.which("iptables-legacy-restore"),
        reason="SKIPPED LOUDLY: needs iptables with both backends (apt install iptables)",
    ),
]

ECHO = """
import json, socket, struct, sys, threading
ports = [int(p) for p in sys.argv[1:]]
def serve(listener, family):
    while True:
        connection, peer = listener.accept()
        level = socket.SOL_IP if family == socket.AF_INET else 41
        size = 16 if family == socket.AF_INET else 28
        try:
            raw = connection.getsockopt(level, 80, size)
        except OSError:
            raw = b""
        if family == socket.AF_INET and raw:
            original = [socket.inet_ntop(family, raw[4:8]), struct.unpack("!H", raw[2:4])[0]]
        elif raw:
            original = [socket.inet_ntop(family, raw[8:24]), struct.unpack("!H", raw[2:4])[0]]
        else:
            original = None
        answer = {"port": listener.getsockname()[1], "original": original}
        connection.sendall(json.dumps(answer).encode())
        connection.close()
for port in ports:
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(41, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen()
        threading.Thread(target=serve, args=(listener, family), daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""

ASK = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[3]))
try:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
    print(connection.recv(1000).decode())
except OSError as error:
    print('{"error": "%s"}' % error)
"""


class Namespace:
    """A network namespace that ends with its process, whatever happens to the test."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        self.children: list[subprocess.Popen[str]] = []
        mine = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == mine:
            time.sleep(0.01)

    def enter(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.process.pid), "-n", *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.enter(*command), capture_output=True, text=True, check=check, timeout=60)

    def redirect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "proxy.redirect", *arguments, check=False)

    def listen(self, *ports: int) -> None:
        child = subprocess.Popen(
            self.enter(sys.executable, "-c", ECHO, *map(str, ports)), stdout=subprocess.PIPE, text=True
        )
        self.children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"

    def ask(self, host: str, port: int, uid: int = 0) -> dict[str, object]:
        """Connect as a user; what answered: its own port and the original destination it saw."""
        answer: dict[str, object] = json.loads(self.run(sys.executable, "-c", ASK, host, str(port), str(uid)).stdout)
        return answer

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def pod_and_neighbour() -> Iterator[tuple[Namespace, Namespace]]:
    pod, neighbour = Namespace(), Namespace()
    try:
        pod.run(*f"ip link add eth0 type veth peer name eth0 netns {neighbour.process.pid}".split())
        for namespace, last in ((pod, 2), (neighbour, 3)):
            for command in (
                "ip link set lo up",
                f"ip address add 10.99.0.{last}/24 dev eth0",
                f"ip address add fd99::{last}/64 dev eth0 nodad",
                "ip link set eth0 up",
            ):
                namespace.run(*command.split())
        yield pod, neighbour
    finally:
        pod.close()
        neighbour.close()


@pytest.fixture
def pod(pod_and_neighbour: tuple[Namespace, Namespace]) -> Namespace:
    return pod_and_neighbour[0]


def saved(pod: Namespace, backend: str) -> str:
    return "".join(
        line + "\n"
        for stem in ("iptables", "ip6tables")
        for line in pod.run(f"{stem}-{backend}-save", "-t", "nat").stdout.splitlines()
        if not line.startswith("#")
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_connections_are_redirected_in_both_directions_and_both_ip_versions(
    pod_and_neighbour: tuple[Namespace, Namespace], backend: str
) -> None:
    pod, neighbour = pod_and_neighbour
    pod.listen(4140, 4143, 4191, 8080, 9000)
    neighbour.listen(80, 443)
    arguments = (
        "--mode", backend, "--inbound-skip-ports", "9000", "--outbound-skip-ports", "443",
    )  # fmt: skip
    done = pod.redirect(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"IPv4: set with iptables-{backend}" in done.stdout
    assert f"IPv6: set with ip6tables-{backend}" in done.stdout
    for here, there in (("10.99.0.2", "10.99.0.3"), ("fd99::2", "fd99::3")):
        # What the application dials arrives at the outbound port, and says where it was going.
        assert pod.ask(there, 80) == {"port": 4140, "original": [there, 80]}
        # The proxy's own connections pass, and so do skipped ports and the pod's own loopback.
        assert pod.ask(there, 80, UID)["port"] == 80
        assert pod.ask(there, 443)["port"] == 443
        assert pod.ask(here, 8080)["port"] == 8080
        # What others dial arrives at the inbound port; skipped ports and the proxy's own do not.
        assert neighbour.ask(here, 8080) == {"port": 4143, "original": [here, 8080]}
        assert neighbour.ask(here, 9000)["port"] == 9000
        assert neighbour.ask(here, 4191)["port"] == 4191
        assert neighbour.ask(here, 4143)["port"] == 4143


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_run_changes_nothing(pod: Namespace, backend: str) -> None:
    assert pod.redirect("--mode", backend).returncode == 0
    first = saved(pod, backend)
    assert "PROXY_INIT_REDIRECT" in first
    assert pod.redirect("--mode", backend).returncode == 0
    assert saved(pod, backend) == first
    other = pod.redirect("--mode", backend, "--outbound-skip-ports", "6443")
    assert other.returncode == 0
    changed = saved(pod, backend)
    assert "ignore-port-6443" in changed
    assert changed.count("-j PROXY_INIT_OUTPUT") == first.count("-j PROXY_INIT_OUTPUT") == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_of_others_stay(pod: Namespace, backend: str) -> None:
    pod.run(f"iptables-{backend}", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "1", "-j", "RETURN")
    assert pod.redirect("--mode", backend).returncode == 0
    assert "--dport 1 -j RETURN" in saved(pod, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_check_tells_whether_the_rules_are_there(pod: Namespace, backend: str) -> None:
    missing = pod.redirect("--check", "--mode", backend)
    assert missing.returncode == 1
    assert "IPv4 is not redirected" in missing.stderr
    assert "PROXY_INIT" not in saved(pod, backend)
    assert pod.redirect("--mode", backend).returncode == 0
    assert pod.redirect("--check", "--mode", backend).returncode == 0
    assert pod.redirect("--check").returncode == 0
    assert pod.redirect("--check", "--mode", backend, "--proxy-uid", "9").returncode == 1
    pod.run(f"ip6tables-{backend}", "-t", "nat", "-F", "PROXY_INIT_REDIRECT")
    gone = pod.redirect("--check", "--mode", backend)
    assert gone.returncode == 1
    assert "IPv6 is not redirected" in gone.stderr


def test_auto_stays_with_the_backend_of_an_earlier_run(pod: Namespace) -> None:
    assert pod.redirect("--mode", "legacy").returncode == 0
    done = pod.redirect("--mode", "auto")
    assert "set with iptables-legacy" in done.stdout
    assert "PROXY_INIT" not in saved(pod, "nft")


def test_auto_prefers_nft_on_a_clean_pod(pod: Namespace) -> None:
    assert "set with iptables-nft" in pod.redirect().stdout


def test_a_pod_without_ipv6_needs_no_ipv6_rules(pod: Namespace) -> None:
    pod.run("ip", "address", "del", "fd99::2/64", "dev", "eth0")
    done = pod.redirect("--mode", "nft")
    assert done.returncode == 0
    assert "IPv6: this pod has no address" in done.stdout
    assert "PROXY_INIT" not in pod.run("ip6tables-nft-save", "-t", "nat").stdout


def test_a_pod_with_ipv6_and_no_ip6tables_is_refused(pod: Namespace, tmp_path_factory: pytest.TempPathFactory) -> None:
    only_v4 = tmp_path_factory.mktemp("bin")
    for name in ("iptables-nft-save", "iptables-nft-restore"):
        (only_v4 / name).symlink_to(shutil.which(name) or "")
    done = pod.run("env", f"PATH={only_v4}", sys.executable, "-m", "proxy.redirect", check=False)
    assert done.returncode == 1
    assert "proxy.redirect: none of ip6tables-nft" in done.stderr


def test_without_the_right_to_change_rules_it_fails_in_words(pod: Namespace) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("SKIPPED LOUDLY: needs setpriv (util-linux)")
    done = pod.run(
        setpriv, "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", sys.executable, "-m", "proxy.redirect",
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("proxy.redirect: IPv4 rules could not be set: iptables-nft-save: ")


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_capabilities_are_enough(pod: Namespace, backend: str) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("SKIPPED LOUDLY: needs setpriv (util-linux)")
    done = pod.run(
        setpriv, "--bounding-set=-all,+net_admin,+net_raw", sys.executable, "-m", "proxy.redirect", "--mode", backend,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_removed_leaves_nothing(pod: Namespace, backend: str) -> None:
    before = saved(pod, backend)
    redirect = [sys.executable, "-m", "proxy.redirect", "--mode", backend]
    pod.run(*redirect, "--inbound-only-ports", "8080", "--outbound-only-subnets", "10.0.0.0/8")
    assert "--dport 8080" in saved(pod, backend) or "--dports 8080" in saved(pod, backend)
    pod.run(*redirect, "--remove")
    assert saved(pod, backend) == before
    assert "chain" not in pod.run("nft", "list", "ruleset").stdout
    assert pod.run(*redirect, "--remove").stdout == "", "nothing to take is as good"
