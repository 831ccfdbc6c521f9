"""Drills with real processes: certificates that end, identity that is away, clocks that are wrong, everything expired.

What fails in each is named here as README names it; all else that fails, fails the drill.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from components.trust.authority import ANCHOR_LIFETIME, make_anchor, make_issuer
from proxy.api import labels, names
from tests.kit.certificates import Signer, spoilt
from tests.kit.clock import HOUR, Clock
from tests.kit.control import DOMAIN
from tests.kit.http2_ends import HTTP2Load, Origin
from tests.kit.impostor import Impostor, showing
from tests.kit.lines import App, Line, Load
from tests.kit.sidecar import as_proxy_user
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

NAME = names.workload_identity("stranger", "demo", labels.MESH_NAMESPACE, DOMAIN).dns_name

PORT, PORT2 = 8080, 8081
LIFE = 10
"""Seconds that leaves of these drills live, without the allowance for clocks that differ: all here go by one."""
SHORT = {"IDENTITY_MIN_REFRESH": "1s"}


@contextlib.contextmanager
def living(seconds: float) -> Iterator[Mesh]:
    """A mesh whose leaves live so long."""
    made = Mesh(leaf_seconds=seconds, skew_seconds=0)
    made.settings = dict(SHORT)
    with made:
        yield made


@pytest.fixture
def brief(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh of short-lived leaves; `mesh` is asked for only because it skips where none can be made."""
    with living(LIFE) as made:
        yield made


def failed(pod: Pod, side: str, cause: str) -> float:
    return float(pod.proxy.metric(f"{side}_tcp_errors_total", error=cause))


def dials(pod: Pod) -> float:
    """Connections that its proxy has opened to other pods."""
    return float(pod.proxy.metric("tcp_open_total", direction="outbound", peer="dst"))


def renewals(pod: Pod) -> float:
    return float(pod.proxy.metric("control_identity_cert_refreshes_total", result="ok"))


# Certificates that end


def test_pooled_connections_end_with_their_certificates_and_nothing_fails(brief: Mesh) -> None:
    """HTTP/1 and HTTP/2 under load for longer than a leaf lives: each connection is replaced, none is missed."""
    caller, called = (brief.pod(name) for name in ("caller", "called"))
    address = brief.service("called", 80, [called], target=PORT)
    address2 = brief.service("called2", 80, [called], target=PORT2)
    with App(called, PORT), Origin(called, PORT2), Line(brief, caller, called) as line:
        kept = line.open()
        kept.send(b"\x00one")
        app = line.accept()
        app.exactly(4)
        with Load(caller, address, clients=2) as load, HTTP2Load(caller, address2, clients=2) as streams:
            until("requests", lambda: load.ok > 20 and streams.ok > 20, 10)
            before = dials(caller)
            until("every pooled connection is made anew", lambda: dials(caller) >= before + 3, LIFE + 20, 0.5)
            assert dials(caller) < before + 20, "made anew without need"
            until("renewed certificates", lambda: renewals(caller) >= 2 and renewals(called) >= 2, 20)
            then = (load.ok, streams.ok)
            until("requests", lambda: load.ok > then[0] + 50 and streams.ok > then[1] + 50, 10)
        assert not load.failures + streams.failures, (load.failures + streams.failures)[:3]
        # Bytes that are not HTTP cannot be carried over to another connection: README says that it stays.
        kept.send(b"two")
        assert app.exactly(3) == b"two"


def test_an_idle_connection_is_closed_when_its_peers_certificate_ends(brief: Mesh) -> None:
    caller, other = brief.pod("caller"), brief.pod("other", meshed=False)
    fact = brief.facts["pod demo/other"]["pod"]
    brief.tell("pod demo/other", {"pod": {**fact, "identity": NAME}})
    signer = Signer.of(brief.issuer.certificate, brief.issuer.key)
    with Impostor(brief, other, spoilt(NAME, signer, ends=timedelta(seconds=6))) as peer:
        assert caller.get(peer.address).status == 200
        begun = time.monotonic()
        where = {"direction": "outbound", "peer": "dst", "target_port": str(peer.port)}
        until("it is closed", lambda: caller.proxy.metric("tcp_open_connections", **where) == 0, 15, 0.1)
        assert time.monotonic() - begun < 6 + 20, "closed within the skew of the certificate's end"
        peer.context = showing(spoilt(NAME, signer))
        assert caller.get(peer.address).status == 200


def test_a_client_whose_certificate_ends_is_seen_out(brief: Mesh) -> None:
    """A client that would stay for ever on a certificate of seconds: its next answer is its last, in time."""
    called, outside = brief.pod("called"), brief.pod("outside", meshed=False)
    signer = Signer.of(brief.issuer.certificate, brief.issuer.key)
    context = showing(spoilt(NAME, signer, ends=timedelta(seconds=6)), client=True)
    request = b"GET / HTTP/1.1\r\nHost: called\r\n\r\n"
    with App(called, PORT), outside.connect((called.ip, PORT)) as plain:
        with context.wrap_socket(plain, server_hostname=called.identity) as wrapped:
            begun = time.monotonic()
            wrapped.settimeout(30)
            while True:
                try:
                    wrapped.sendall(request)
                    if not wrapped.recv(1000):
                        break
                except OSError:
                    break
                time.sleep(0.2)
            assert time.monotonic() - begun < 6 + 20
    assert failed(called, "inbound", "certificate_expired") == 0, "it ended as an ordinary connection does"


# Identity away


def test_identity_away_for_thirty_percent_of_a_leaf_is_not_noticed(mesh: Mesh) -> None:
    """Whenever it begins: here just before a renewal is due, which is the worst that can be."""
    life = 3 * LIFE
    with living(life) as own:
        caller, called = own.pod("caller"), own.pod("called")
        address = own.service("called", 80, [called], target=PORT)
        with App(called, PORT), Load(caller, address, clients=2) as load:
            last = caller.proxy.metric("control_identity_cert_refresh_timestamp_seconds")
            time.sleep(max(0.0, last + life * 0.58 - time.time()))
            counts, begun = (renewals(caller), renewals(called)), time.monotonic()
            own.stop_control()
            time.sleep(life * 0.2)
            assert caller.proxy.get("/ready").status == 200, "readiness stays"
            own.start_control()
            away = time.monotonic() - begun
            until("renewed", lambda: renewals(caller) > counts[0] and renewals(called) > counts[1], life)
            assert caller.get(address).status == 200
        assert away < life * 0.3 or load.failures, f"unfit: this machine took {away:.0f} s to start identity again"
        assert not load.failures, load.failures[:3]
        assert load.ok > 200


def test_identity_away_for_longer_fails_by_name_and_mends_itself(brief: Mesh) -> None:
    """README: beyond 30 %, calls between pods whose certificates have ended fail until identity is back."""
    caller, called = (brief.pod(name) for name in ("caller", "called"))
    address = brief.service("called", 80, [called], target=PORT)
    with App(called, PORT), Load(caller, address, clients=2, pause=0.05) as load:
        until("requests", lambda: load.ok > 10, 10)
        time.sleep(LIFE * 0.5)
        brief.stop_control()
        assert not load.failures
        until("certificates end", lambda: load.failures, LIFE)
        assert failed(caller, "outbound", "certificate_expired") + failed(called, "inbound", "certificate_expired") > 0
        assert caller.proxy.get("/ready").status == 200, "a restart would only lose what still works"
        until("it says so", lambda: "no new certificate" in caller.proxy.log, LIFE)
        brief.start_control()
        until("renewed", lambda: renewals(caller) >= 2 and renewals(called) >= 2, 30)
        until("served again", lambda: caller.get(address).status == 200, 10)


# Clocks


def skewed(mesh: Mesh, name: str) -> tuple[Pod, Clock]:
    """A pod whose proxy has a clock of its own."""
    clock = Clock(mesh.folder, name)
    settings = {**SHORT, "IDENTITY_MAX_REFRESH": "1s"}
    command = clock.command(*as_proxy_user(), sys.executable, "-m", "proxy")
    return mesh.pod(name, command=command, settings=settings), clock


@pytest.mark.parametrize(
    ("hours", "cause"), [(25, "certificate_expired"), (-1, "certificate_not_yet_valid")], ids=["+25h", "-1h"]
)
def test_a_node_whose_clock_is_wrong_fails_alone_and_by_name(mesh: Mesh, hours: int, cause: str) -> None:
    """README: new connections from and to its pods fail; all others, and those that stand, go on."""
    with Mesh() as own:
        caller, called = own.pod("caller"), own.pod("called")
        wrong, clock = skewed(own, "wrong")
        good, bad = own.service("called", 80, [called], target=PORT), own.service("wrong", 80, [wrong], target=PORT)
        with App(called, PORT), App(wrong, PORT), Load(caller, good, clients=2) as load:
            with Load(caller, bad, clients=1) as standing:
                until("requests", lambda: load.ok > 20 and standing.ok > 20, 10)
                clock.shift(hours * HOUR)
                begun = standing.ok
                until("requests", lambda: standing.ok > begun + 100, 10)
                assert not standing.failures, standing.failures[:3]
            assert wrong.get(good).status in (502, 503, 504)
            # What it never called it cannot even look up: its connection to discovery fails as any other does.
            assert f'control connection failed service={own.control_pod.ip}:' in wrong.proxy.log
            assert f'error="{cause}' in wrong.proxy.log
            other = own.pod("other")
            assert other.get(bad).status in (502, 503, 504)
            assert failed(wrong, "inbound", cause) > 0
            until("the pod says so", lambda: "no new certificate" in wrong.proxy.log, 10)
            assert wrong.proxy.metric("control_identity_cert_refreshes_total", result="error") > 0
            clock.shift(0)
            until("mended", lambda: other.get(bad).status == 200 and wrong.get(good).status == 200, 20)
        assert not load.failures, load.failures[:3]


@pytest.mark.parametrize("hours", [25, -25])
def test_identity_whose_clock_is_wrong_hurts_nobody(mesh: Mesh, hours: int) -> None:
    """What it signs is refused by whom it is for; the certificates that there are stay until their end."""
    with contextlib.ExitStack() as stack:
        made = Mesh()
        clock = Clock(made.folder, "control")
        made.control_environ = clock.environ
        own = stack.enter_context(made)
        often = {"IDENTITY_MIN_REFRESH": "200ms", "IDENTITY_MAX_REFRESH": "500ms"}
        caller, called = (own.pod(name, settings=often) for name in ("caller", "called"))
        address = own.service("called", 80, [called], target=PORT)
        with App(called, PORT), Load(caller, address, clients=2) as load:
            until("requests", lambda: load.ok > 20, 10)
            clock.shift(hours * HOUR)
            errors = {"name": "control_identity_cert_refreshes_total", "result": "error"}
            until("refused", lambda: all(pod.proxy.metric(**errors) >= 2 for pod in (caller, called)), 20)
            assert "peers would refuse the certificate" in caller.proxy.log
            assert caller.get(address).status == 200
            clock.shift(0)
            before = renewals(caller)
            until("renewals go on", lambda: renewals(caller) > before + 1, 30)
        assert not load.failures, load.failures[:3]


# Everything expired


def test_everything_expired_is_mended_by_a_new_anchor_with_no_restart(mesh: Mesh) -> None:
    """Eleven years pass for all. What `up -c trust.force=true` writes is written here by hand; that the command writes
    it is tests/iac/test_rotation.py's."""
    made = Mesh()
    clock = Clock(made.folder, "all")
    made.control_environ = clock.environ
    made.proxy_prefix = clock.command()
    with made as own:
        caller, called = own.pod("caller"), own.pod("called")
        address = own.service("called", 80, [called], target=PORT)
        with App(called, PORT):
            assert caller.get(address).status == 200
            then = datetime.now(UTC) + ANCHOR_LIFETIME * 1.1
            clock.shift(int((ANCHOR_LIFETIME * 1.1).total_seconds()))
            fresh = own.pod("fresh", ready=False)
            until("what is expired is named", lambda: "certificate_expired" in fresh.proxy.log, 20)
            anchor = make_anchor(labels.MESH_NAMESPACE, DOMAIN, then)
            own.write_trust(anchor, make_issuer(anchor, labels.MESH_NAMESPACE, DOMAIN, then))
            pods = (own.control_pod, caller, called)
            processes = [pod.proxy.pid for pod in pods]
            until("all are certified", lambda: fresh.proxy.get("/ready").status == 200, 60)
            until("served", lambda: fresh.get(address).status == 200, 60)
            until("served", lambda: caller.get(address).status == 200, 30)
            assert [pod.proxy.pid for pod in pods] == processes
            assert all(pod.proxy.process.poll() is None for pod in pods)
