"""`tulle stat`: the queries, the rows made of their answers, and how they are shown."""

import json
import math
from typing import Any

import click
import pytest

from components.cli.output import duration, parse_seconds, percent
from components.cli.prometheus import decode
from components.cli.queries import rows_of, stat_queries, vectors_by_key
from components.cli.stat import parse_resource, table_row, unsettled, youngest
from components.cli.workloads import names_of_kind, owner_of
from components.deploy.errors import ClusterError

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
WEB = ("demo", "web")


def figures(**known: float) -> dict[str, dict[tuple[str, str], float]]:
    names = stat_queries("deployment", "demo", "1m")
    return {name: {WEB: known[name]} if name in known else {} for name in names}


def test_a_row_has_exactly_the_agreed_keys_in_order() -> None:
    (row,) = rows_of("deployment", [WEB], figures())
    assert list(row.as_dict()) == KEYS


def test_a_busy_workload() -> None:
    (row,) = rows_of(
        "deployment",
        [WEB],
        figures(
            responses=200.0, successes=199.0, unmeshed=3.5, from_mesh=196.5, from_mesh_mtls=196.5, open=12.0,
            read=1000.0, write=2000.0, p50=1.23456, p95=4.0, p99=9.0,
        ),
    )  # fmt: skip
    assert row.as_dict() == {
        "namespace": "demo",
        "kind": "deployment",
        "name": "web",
        "success_rate": 0.995,
        "rps": 200.0,
        "latency_ms_p50": 1.235,
        "latency_ms_p95": 4.0,
        "latency_ms_p99": 9.0,
        "mtls_share": 1.0,
        "unmeshed_rps": 3.5,
        "tcp_open_connections": 12,
        "tcp_read_bytes_per_second": 1000.0,
        "tcp_write_bytes_per_second": 2000.0,
    }


def test_without_traffic_there_is_no_share_and_no_latency() -> None:
    (row,) = rows_of("deployment", [WEB], figures(responses=0.0))
    assert (row.success_rate, row.mtls_share, row.latency_ms_p99, row.rps) == (None, None, None, 0.0)


def test_all_failures_are_zero_success_not_unknown() -> None:
    (row,) = rows_of("deployment", [WEB], figures(responses=5.0))
    assert row.success_rate == 0.0


def test_workloads_that_are_gone_have_no_row() -> None:
    assert rows_of("deployment", [], figures(responses=5.0)) == []


def test_queries_leave_probes_out_and_measure_mtls_at_the_clients() -> None:
    queries = stat_queries("deployment", "demo", "30s")
    for name in ("responses", "successes", "unmeshed", "p50", "p95", "p99"):
        assert 'route_name!="probe"' in queries[name]
        assert 'direction="inbound"' in queries[name]
    assert 'direction="outbound"' in queries["from_mesh"]
    assert 'dst_namespace="demo"' in queries["from_mesh"]
    assert 'target_port!="4191"' in queries["from_mesh"], "scrapes of the admin port are not the workload's requests"
    assert queries["from_mesh_mtls"].count('tls="true"') == 1
    assert "[30s]" in queries["responses"]
    assert 'namespace="' not in "".join(stat_queries("pod", None, "1m").values())


def test_answers_of_servers_and_of_clients_name_the_same_workload() -> None:
    found = vectors_by_key(
        "deployment",
        [({"namespace": "demo", "deployment": "web"}, 1.0), ({"dst_namespace": "demo", "dst_deployment": "api"}, 2.0)],
    )
    assert found == {("demo", "web"): 1.0, ("demo", "api"): 2.0}


def answer(*values: str) -> bytes:
    result = [{"metric": {"pod": str(i)}, "value": [0, value]} for i, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_prometheus_answers_are_read_and_nan_is_nothing() -> None:
    assert [sample.value for sample in decode(answer("1.5", "NaN", "+Inf"))] == [1.5]
    assert math.isfinite(decode(answer("0"))[0].value)


@pytest.mark.parametrize("body", [b"<html>", b'{"status":"error","error":"parse error"}'])
def test_prometheus_errors_are_told(body: bytes) -> None:
    with pytest.raises(ClusterError, match="Prometheus"):
        decode(body)


@pytest.mark.parametrize(
    ("typed", "name", "expected"),
    [
        ("deploy", None, ("deployment", None)),
        ("deployments", "web", ("deployment", "web")),
        ("sts/db", None, ("statefulset", "db")),
        ("po", None, ("pod", None)),
    ],
)
def test_resources_as_people_type_them(typed: str, name: str | None, expected: tuple[str, str | None]) -> None:
    assert parse_resource(typed, name) == expected


@pytest.mark.parametrize(("typed", "name"), [("service", None), ("deploy/", None), ("deploy/web", "web")])
def test_bad_resources_are_refused(typed: str, name: str | None) -> None:
    with pytest.raises(click.BadParameter):
        parse_resource(typed, name)


def pod(name: str, *, owner: tuple[str, str] | None = None, meshed: bool = True, phase: str = "Running") -> Any:
    labels = {"linkerd.io/control-plane-ns": "tulle"} if meshed else {}
    metadata: dict[str, Any] = {"name": name, "namespace": "demo", "labels": {**labels, "pod-template-hash": "6f7"}}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    return {"metadata": metadata, "status": {"phase": phase}, "spec": {"containers": []}}


def test_a_deployment_owns_the_pods_of_its_replica_set() -> None:
    assert owner_of(pod("web-6f7-x", owner=("ReplicaSet", "web-6f7"))) == ("deployment", "web")
    assert owner_of(pod("x", owner=("ReplicaSet", "bare"))) == ("replicaset", "bare")
    assert owner_of(pod("x", owner=("Job", "j"))) == ("job", "j")
    assert owner_of(pod("lone")) == ("pod", "lone")


def test_rows_are_for_workloads_with_a_live_meshed_pod() -> None:
    pods = [
        pod("web-6f7-a", owner=("ReplicaSet", "web-6f7")),
        pod("web-6f7-b", owner=("ReplicaSet", "web-6f7")),
        pod("out-6f7-a", owner=("ReplicaSet", "out-6f7"), meshed=False),
        pod("old-6f7-a", owner=("ReplicaSet", "old-6f7"), phase="Failed"),
    ]
    assert list(names_of_kind(pods, "deployment", "tulle")) == [("demo", "web")]
    assert len(list(names_of_kind(pods, "pod", "tulle"))) == 2


@pytest.mark.parametrize(
    ("share", "text"), [(None, None), (1.0, "100.00%"), (0.999999, "99.99%"), (0.5, "50.00%"), (0.0, "0.00%")]
)
def test_only_a_full_share_is_called_100_percent(share: float | None, text: str | None) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (3700, "1h1m"), (86400 * 3 + 5, "3d5s"), (-90, "-1m30s")]
)
def test_durations_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_shows_dashes_units_and_percentages() -> None:
    (row,) = rows_of("deployment", [WEB], figures(responses=200.0, successes=200.0, p50=1.5, p99=12.3))
    assert table_row(row)[:8] == ("demo", "web", "100.00%", "200.0", "1.5ms", None, "12ms", None)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_lengths_of_time_as_options_take_them(text: str, seconds: float) -> None:
    assert parse_seconds(None, None, text) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "s", "1d", "-1s", "1 s", "9999999"])
def test_other_lengths_of_time_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="length of time"):
        parse_seconds(None, None, text)  # type: ignore[arg-type]


def test_figures_prove_a_mesh_that_is_well_or_say_what_is_missing() -> None:
    def said(age: float = 61.0, **known: float) -> str:
        return unsettled(rows_of("deployment", [WEB], figures(**known)), age, 60.0)

    meshed = {"from_mesh": 9.0, "from_mesh_mtls": 9.0}
    good = {"responses": 9.0, "successes": 9.0, "p99": 1.0, **meshed}
    assert said(**good) == ""
    assert "no workload has answered" in said()
    assert "answered 88.89%" in said(**{**good, "successes": 8.0})
    assert "33.33% of its meshed clients' requests over mTLS" in said(**{**good, "from_mesh_mtls": 3.0})
    assert "no meshed client" in said(responses=9.0, successes=9.0, p99=1.0)
    assert "youngest pod is 59 s old" in said(59.4, **good)


def test_the_youngest_pod_is_one_of_the_mesh_that_lives() -> None:
    def made(moment: str, **options: Any) -> Any:
        found = pod("p", **options)
        found["metadata"]["creationTimestamp"] = moment
        return found

    pods = [
        made("1970-01-01T00:01:00Z"),
        made("1970-01-01T00:02:00Z"),
        made("1970-01-01T00:03:00Z", meshed=False),
        made("1970-01-01T00:03:00Z", phase="Succeeded"),
    ]
    assert youngest(pods, "tulle", 150.0) == 30.0
    assert youngest([], "tulle", 150.0) == math.inf
