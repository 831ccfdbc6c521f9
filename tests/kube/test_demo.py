"""The demo as `make up` leaves it: every request succeeds, those of the mesh over mTLS, and the counts are right."""

import json
import subprocess
import sys
from typing import Any

from tests.kit.apps import Apps
from tests.kit.cluster import Kube
from tests.kit.waiting import until

KEYS = [
    "namespace",
    "kind",
    "name",
    "success_rate",
    "rps",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "mtls_share",
    "unmeshed_rps",
    "tcp_open_connections",
    "tcp_read_bytes_per_second",
    "tcp_write_bytes_per_second",
]


def tulle(*args: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user's shell runs it."""
    command = [sys.executable, "-m", "components.cli.main", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def rows(namespace: str, kind: str = "deploy") -> dict[str, dict[str, Any]]:
    done = tulle("stat", kind, "-n", namespace, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(list(row) == KEYS for row in found)
    return {row["name"]: row for row in found}


def test_every_request_of_the_demo_succeeds_over_mtls(kube: Kube) -> None:
    def whole() -> dict[str, dict[str, Any]] | None:
        found = rows("demo")
        perfect = all(
            found.get(name, {}).get("success_rate") == 1
            and found[name]["mtls_share"] == 1
            and found[name]["rps"] > 1
            and 0 < found[name]["latency_ms_p50"] <= found[name]["latency_ms_p95"] <= found[name]["latency_ms_p99"]
            for name in ("web", "api")
        )
        whole.last = found  # type: ignore[attr-defined]
        return found if perfect else None

    try:
        found = until("100 % success and 100 % mTLS for web and api", whole, 150, 3)
    except AssertionError as error:
        raise AssertionError(f"{error}: {json.dumps(whole.last, indent=1)}") from None  # type: ignore[attr-defined]
    assert found["api"]["unmeshed_rps"] == 0, "only web calls api, and web is meshed"


def test_the_unmeshed_client_is_seen_as_such(kube: Kube) -> None:
    promql = 'sum(rate(request_total{namespace="demo",direction="inbound",tls="no_identity",route_name!="probe"}[1m]))'
    until(
        "requests with tls=no_identity in demo",
        lambda: [s for s in kube.prometheus.query(promql) if s.value > 0],
        90,
        2,
    )
    assert any(row["unmeshed_rps"] > 0 for row in rows("demo").values())


def test_the_bytes_of_the_tcp_pair_are_counted(kube: Kube) -> None:
    def flowing() -> dict[str, Any] | None:
        return next(
            (
                row
                for name, row in rows("demo").items()
                if "tcp" in name
                and row["tcp_open_connections"] >= 1
                and row["tcp_read_bytes_per_second"] > 1000
                and row["tcp_write_bytes_per_second"] > 1000
            ),
            None,
        )

    until("bytes of the TCP pair", flowing, 90, 3)


def test_the_mesh_counts_what_the_client_counts(kube: Kube, image: str, meshed: str) -> None:
    apps = Apps(kube, image)
    apps.serve("api", meshed)
    counts = apps.bounded_client(meshed, f"http://api.{meshed}:8080/", rate=80, new=20, seconds=20)
    assert counts["sent"] > 1500
    assert counts["failed"] == 0, counts

    def counted(family: str, more: str = "") -> float:
        selector = f'namespace="{meshed}",direction="inbound",deployment="api",route_name!="probe"{more}'
        return sum(sample.value for sample in kube.prometheus.query(f"sum({family}{{{selector}}})"))

    for family, more, expected in (
        ("request_total", ',tls="true"', counts["sent"]),
        ("response_total", ',classification="success"', counts["ok"]),
        ("response_latency_ms_count", "", counts["ok"]),
    ):
        until(
            f"{family} within 1 % of the client's {expected}",
            lambda family=family, more=more, expected=expected: abs(counted(family, more) - expected) <= expected / 100,  # type: ignore[misc]
            40,
            1,
        )


def test_check_says_that_all_is_well(kube: Kube) -> None:
    done = tulle("check", "-o", "json", "--wait", "60")
    found = json.loads(done.stdout)
    wrong = [finding for finding in found["checks"] if finding["status"] != "ok"]
    assert (done.returncode, found["ok"], wrong) == (0, True, [])


def test_identity_names_each_pod_and_the_life_of_its_leaf(kube: Kube) -> None:
    done = tulle("identity", "deploy", "-n", "demo", "-o", "json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([row for row in found if row["workload"] == "deployment/api"]) == 3
    for row in found:
        assert row["identity"].endswith(".demo.serviceaccount.identity.tulle.cluster.local")
        assert 0 < row["seconds_left"] <= 24 * 3600 + 60


def test_versions_of_everything_that_runs(kube: Kube) -> None:
    done = tulle("version", "-o", "json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert {"identity", "destination", "injector"} <= set(found["control_plane"])
    assert sum(found["proxies"].values()) >= 8
