"""A proxy of several processes: it is one to whoever looks at it, and what happens to one of them is its own affair."""

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from h2.events import RequestReceived, ResponseReceived

from tests.kit.http2 import call, named, serve
from tests.kit.lines import OPAQUE_RANGE, App, Line, Load, Peer
from tests.kit.peers import ask
from tests.kit.sidecar import ROOT, as_proxy_user, read_answer
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

PORT = 8080
REQUEST = "GET / HTTP/1.1\r\nhost: web\r\n\r\n"
ANSWER = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

numbers = itertools.count()
needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two CPUs")
pytestmark = needs_two


@pytest.fixture(scope="module")
def crew(mesh: Mesh) -> Pod:
    """A pod whose proxy has two workers."""
    return mesh.pod("crew", opaque=OPAQUE_RANGE, CORES="2")


@pytest.fixture(scope="module")
def callers(mesh: Mesh) -> Pod:
    """A caller whose proxy has two workers."""
    return mesh.pod("callers", CORES_MAX="2")


@pytest.fixture
def mortal(mesh: Mesh) -> Iterator[Pod]:
    """A pod with two workers that the test may harm."""
    pod = mesh.pod(f"mortal-{next(numbers)}", CORES="2", SHUTDOWN_ENDPOINT_ENABLED="true")
    yield pod
    pod.proxy.stop(5)
    mesh.pods.remove(pod)
    mesh.forget(pod)
    pod.namespace.close()


def workers(pod: Pod) -> list[int]:
    """The process ids of a proxy's workers."""
    children = Path(f"/proc/{pod.proxy.pid}/task/{pod.proxy.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"proxy.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_gone(pid: int) -> bool:
    """Whether a process has ended; whose parent has gone may wait for long to be forgotten."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def open_now(pod: Pod) -> list[float]:
    """How many connections each worker has."""
    return [value for _, value in sorted(pod.proxy.samples("tulle_worker_open_connections"), key=str)]


def test_both_carry_every_protocol(lines: Callable[..., Line], callers: Pod, crew: Pod) -> None:
    line, http2_line, opaque_line = lines(callers, crew), lines(callers, crew), lines(callers, crew, opaque=True)
    for _ in range(2):
        caller = line.open()
        caller.send(REQUEST)
        app = line.accept()
        app.head()
        app.send(ANSWER)
        assert caller.answer().status == 200
    until("one each", lambda: open_now(callers) == open_now(crew) == [1, 1], 5)
    for _ in range(2):
        talk = call(http2_line)
        stream = talk.ask()
        served = serve(http2_line)
        served.answer(served.expect(RequestReceived).stream_id)
        assert named(talk.expect(ResponseReceived, stream))[":status"] == "200"
    until("two each", lambda: open_now(callers) == open_now(crew) == [2, 2], 5)
    for _ in range(2):
        speaker = opaque_line.open()
        speaker.send(b"\x00hello")
        assert opaque_line.accept().exactly(6) == b"\x00hello"
    until("three each", lambda: open_now(callers) == open_now(crew) == [3, 3], 5)


def test_a_scrape_sees_the_whole(mesh: Mesh, callers: Pod, crew: Pod) -> None:
    """Every request of eight clients, to the last one, on both sides, in every family that counts it."""
    address = mesh.service("counted", 80, [crew], target=PORT)
    descriptors = [len(os.listdir(f"/proc/{pod.proxy.pid}/fd")) for pod in (callers, crew)]
    with App(crew, PORT) as app:
        with Load(callers, address, clients=8) as load:
            until("all at work", lambda: load.ok > 400, 20)
            assert callers.proxy.metric("tcp_open_connections", direction="outbound", peer="src") == 8
            busy = [len(os.listdir(f"/proc/{pod.proxy.pid}/fd")) for pod in (callers, crew)]
        assert not load.failures, load.failures[:3]
        sent = {"direction": "outbound", "authority": "counted.demo.svc.cluster.local:80"}
        came = {"direction": "inbound", "target_port": str(PORT), "tls": "true"}

        def counts() -> list[float]:
            return [
                *(callers.proxy.metric(name, **sent) for name in ("request_total", "response_total")),
                callers.proxy.metric("response_latency_ms_count", **sent),
                callers.proxy.metric("outbound_http_route_request_statuses_total", parent_name="counted"),
                *(crew.proxy.metric(name, **came) for name in ("request_total", "response_total")),
                crew.proxy.metric("inbound_http_request_duration_seconds_count", parent_port=str(PORT)),
                app.answered,
            ]

        until(f"{load.ok} everywhere", lambda: counts() == [load.ok] * 8, 5)
        opened = {"direction": "outbound", "peer": "src", "target_addr": f"{address[0]}:80"}
        assert callers.proxy.metric("tcp_open_total", **opened) == 8
        until("none open", lambda: callers.proxy.metric("tcp_open_connections", **opened) == 0, 5)
    # The process that accepts keeps no descriptor of what it handed on.
    assert max(after - before for before, after in zip(descriptors, busy, strict=True)) <= 3
    assert callers.proxy.metric("tulle_worker_refused_total") == 0


def test_what_is_asked_of_one_is_told_to_all(callers: Pod) -> None:
    pids = workers(callers)
    assert len(pids) == 2
    for name, least in (("tulle_worker_resident_memory_bytes", 5e6), ("tulle_worker_open_fds", 3)):
        values = [value for _, value in callers.proxy.samples(name)]
        assert len(values) == 2
        assert min(values) > least
    assert callers.proxy.metric("process_resident_memory_bytes") > callers.proxy.metric(
        "tulle_worker_resident_memory_bytes"
    )

    def set_level(level: str) -> None:
        with callers.connect(("127.0.0.1", 4191)) as admin:
            body = f"PUT /proxy-log-level HTTP/1.1\r\nhost: x\r\ncontent-length: {len(level)}\r\n\r\n{level}"
            admin.sendall(body.encode())
            assert read_answer(admin, "PUT").status == 204

    set_level("debug")
    try:

        def is_heard() -> bool:
            # Each worker says once that it knows an address: twice is both.
            with contextlib.suppress(OSError), callers.connect(("10.96.200.1", 80), 1):
                pass
            return bool(callers.proxy.log.count("destination known address=10.96.200.1:80") == 2)

        until("both workers speak", is_heard, 5)
    finally:
        set_level("info")


def test_a_new_certificate_reaches_every_worker(mesh: Mesh) -> None:
    short = {"IDENTITY_MIN_REFRESH": "200ms", "IDENTITY_MAX_REFRESH": "1s", "CORES": "2"}
    caller, called = mesh.pod("rotating-caller", settings=short), mesh.pod("rotating", settings=short)
    outside = mesh.pod("rotation-outside", meshed=False)
    address = mesh.service("rotating", 80, [called], target=PORT)
    failures: list[str] = []
    stop = threading.Event()

    def shown() -> set[bytes]:
        """The leaf that each worker shows: connections go to them in turn."""
        answers = [
            outside.namespace.within(lambda: ask((called.ip, PORT), called.identity, None)).peer for _ in range(4)
        ]
        assert None not in answers
        return {answer for answer in answers if answer is not None}

    def connect_anew() -> None:
        while not stop.wait(0.01):
            try:
                assert caller.get(address).status == 200
            except Exception as error:
                failures.append(repr(error))

    thread = threading.Thread(target=connect_anew)
    with App(called, PORT), Load(caller, address) as load:
        thread.start()
        try:
            refreshes = "control_identity_cert_refreshes_total"
            old = shown()
            until(
                "five certificates",
                lambda: all(each.proxy.metric(refreshes, result="ok") >= 6 for each in (caller, called)),
                20,
            )
            assert not old & shown(), "a worker still shows an old leaf"
        finally:
            stop.set()
            thread.join(10)
    assert not load.failures, load.failures[:3]
    assert not failures, failures[:3]
    assert load.ok > 100


def test_a_killed_worker_costs_only_what_it_held(mesh: Mesh, mortal: Pod, outsider: Pod) -> None:
    with Line(mesh, outsider, mortal, direct=True) as line:
        callers = [line.open() for _ in range(2)]
        apps: list[Peer] = []
        for caller in callers:
            caller.send(REQUEST)
            apps.append(line.accept())
            apps[-1].head()
        until("one each", lambda: open_now(mortal) == [1, 1], 5)
        came = {"direction": "inbound", "target_port": str(line.port)}
        assert mortal.proxy.metric("request_total", **came) == 2
        before = workers(mortal)
        os.kill(before[0], signal.SIGKILL)
        until("another took its place", lambda: mortal.proxy.metric("tulle_worker_replaced_total") == 1, 10)
        fates = []
        for caller, app in zip(callers, apps, strict=True):
            with contextlib.suppress(OSError):
                app.send(ANSWER)
            try:
                fates.append(caller.answer().status)
            except Exception:
                fates.append(0)
        assert sorted(fates) == [0, 200]
        # What the dead one counted is not forgotten: no counter goes back.
        assert mortal.proxy.metric("request_total", **came) == 2
        assert mortal.proxy.metric("tcp_open_connections", peer="src", **came) == 1
        until("two workers", lambda: len(set(workers(mortal)) | set(before)) == 3 and len(workers(mortal)) == 2, 10)
        with App(mortal, PORT), contextlib.ExitStack() as held:

            def both_serve() -> bool:
                peer = held.enter_context(Peer(outsider.connect((mortal.ip, PORT))))
                peer.send(REQUEST)
                assert peer.answer().status == 200
                return min(open_now(mortal)) >= 1

            until("connections go to both", both_serve, 10)
        assert mortal.proxy.get("/ready").status == 200


def test_a_stuck_worker_holds_up_no_other(mesh: Mesh, mortal: Pod, outsider: Pod) -> None:
    with App(mortal, PORT):
        stuck = workers(mortal)[0]
        os.kill(stuck, signal.SIGSTOP)
        try:
            peers = [Peer(outsider.connect((mortal.ip, PORT))) for _ in range(8)]
            for peer in peers:
                peer.send(REQUEST)
            answered = [peer for peer in peers if not peer.is_silent(0.5)]
            assert len(answered) >= 4
            assert mortal.proxy.get("/metrics").status == 200
            assert mortal.proxy.get("/ready").status == 200
        finally:
            os.kill(stuck, signal.SIGCONT)
        assert [peer.answer().body for peer in peers] == [mortal.name.encode()] * 8
        for peer in peers:
            peer.close()


def allow_descriptors(pid: int, number: int) -> None:
    command = [*as_proxy_user(), "prlimit", f"--pid={pid}", f"--nofile={number}:"]
    subprocess.run(command, check=True, capture_output=True, timeout=10)


def test_a_worker_out_of_descriptors_says_so_and_comes_back(mortal: Pod, outsider: Pod) -> None:
    def served() -> bool:
        with Peer(outsider.connect((mortal.ip, PORT))) as peer:
            try:
                peer.send(REQUEST)
                return peer.answer().status == 200
            except (OSError, HTTPException):
                return False

    with App(mortal, PORT):
        starved = workers(mortal)[0]
        hard = resource.prlimit(0, resource.RLIMIT_NOFILE)[1]
        used = {int(number) for number in os.listdir(f"/proc/{starved}/fd")}
        allow_descriptors(starved, next(number for number in itertools.count() if number not in used))
        try:
            fates = [served() for _ in range(10)]
        finally:
            allow_descriptors(starved, min(hard, 1024))
        assert fates.count(True) >= 5
        lost = mortal.proxy.metric("inbound_tcp_errors_total", error="descriptors exhausted")
        assert lost == fates.count(False) > 0
        assert all(served() for _ in range(10))
        assert "descriptors exhausted" in mortal.proxy.log


@pytest.mark.parametrize("how", ["SIGTERM", "/shutdown"])
def test_all_finish_what_they_have(mesh: Mesh, mortal: Pod, outsider: Pod, how: str) -> None:
    pids = workers(mortal)
    with Line(mesh, outsider, mortal, direct=True) as line:
        callers = [line.open() for _ in range(2)]
        apps = []
        for caller in callers:
            caller.send(REQUEST)
            apps.append(line.accept())
            apps[-1].head()
        until("one each", lambda: open_now(mortal) == [1, 1], 5)
        if how == "SIGTERM":
            mortal.proxy.signal(signal.SIGTERM)
        else:
            with mortal.connect(("127.0.0.1", 4191)) as admin:
                admin.sendall(b"POST /shutdown HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
                assert read_answer(admin, "POST").status == 200
        until("both drain", lambda: mortal.proxy.log.count("draining") == 2, 5)
        assert mortal.proxy.process.poll() is None
        for caller, app in zip(callers, apps, strict=True):
            app.send(ANSWER)
            assert caller.answer().body == b"ok"
        assert mortal.proxy.process.wait(5) == 0
    assert all(map(is_gone, pids))
    assert "worker ended" not in mortal.proxy.log


def test_no_worker_outlives_the_one_that_accepts(mortal: Pod) -> None:
    pids = workers(mortal)
    os.kill(pids[0], signal.SIGSTOP)  # not even one that cannot notice
    mortal.proxy.signal(signal.SIGKILL)
    mortal.proxy.process.wait(5)
    until("all are gone", lambda: all(map(is_gone, pids)), 5)


@pytest.mark.parametrize("cores", ["0", "two", "-1", "100000"])
def test_a_number_out_of_range_is_one_clear_line(cores: str) -> None:
    environ = {"TULLE_PROXY_POD_IPS": "10.0.0.1", "TULLE_PROXY_POD_NAME": "x", "TULLE_PROXY_POD_NAMESPACE": "demo"}
    done = subprocess.run(
        [sys.executable, "-m", "proxy"],
        env={**os.environ, **environ, "TULLE_PROXY_CORES": cores},
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 64
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"proxy: TULLE_PROXY_CORES='{cores}': write ")
