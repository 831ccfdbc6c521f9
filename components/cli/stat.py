"""`tulle stat`: the figures of workloads, from the mesh's Prometheus."""

import re
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from components.cli.access import Access
from components.cli.options import Globals, mesh_options
from components.cli.output import output_option, parse_seconds, percent, print_json, print_table
from components.cli.prometheus import Prometheus
from components.cli.queries import KINDS, Row, rows_of, stat_queries, vectors_by_key
from components.cli.target import find_target
from components.cli.workloads import is_live, is_meshed, names_of_kind
from proxy.api import labels

HEADINGS = (
    "NAMESPACE",
    "NAME",
    "SUCCESS",
    "RPS",
    "P50",
    "P95",
    "P99",
    "MTLS",
    "UNMESHED_RPS",
    "TCP_CONN",
    "READ_B/S",
    "WRITE_B/S",
)


WAIT_PAUSE = 2.0


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Json = dict[str, Any]


def collect(
    pods: list[Json], prometheus: Prometheus, mesh: str, kind: str, namespace: str | None, window: str
) -> list[Row]:
    """Every row of a kind: which workloads there are from Kubernetes, their figures from Prometheus."""
    workloads = list(names_of_kind(pods, kind, mesh))
    if not workloads:
        return []
    figures = {
        name: vectors_by_key(kind, ((sample.labels, sample.value) for sample in prometheus.query(promql)))
        for name, promql in stat_queries(kind, namespace, window).items()
    }
    return rows_of(kind, workloads, figures)


def parse_resource(resource: str, name: str | None) -> tuple[str, str | None]:
    """`deploy`, `deploy/web` or `deploy web`: the kind's label name, and the name if there is one."""
    typed, slash, rest = resource.partition("/")
    if typed not in KINDS:
        raise click.BadParameter(f"{typed!r} is not a kind; known: {', '.join(KINDS)}", param_hint="RESOURCE")
    if slash and (name or not rest):
        raise click.BadParameter(f"{resource!r}: give a name once, as kind/name or kind name", param_hint="RESOURCE")
    return KINDS[typed], (rest if slash else name)


def check_window(_: click.Context, __: click.Parameter, value: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{0,4}(s|m|h|d)", value) is None:
        raise click.BadParameter(f"{value!r} is not a length of time such as 30s, 5m or 1h")
    return value


@click.command()
@click.argument("resource")
@click.argument("name", required=False)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the workloads.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Workloads of all namespaces.")
@click.option("-w", "--window", default="1m", show_default=True, callback=check_window, help="Time to average over.")
@click.option(
    "--wait",
    default="0s",
    callback=parse_seconds,
    metavar="TIME",
    help="Wait until a whole window shows traffic, all of it successful and over mTLS; exit code 1 if it does not.",
)
@output_option
@mesh_options
def stat(
    options: Globals,
    resource: str,
    name: str | None,
    namespace: str,
    all_namespaces: bool,
    window: str,
    wait: float,
    output: str,
) -> None:
    """Success rate, requests/s, latency, mTLS share per workload.

    RESOURCE is a kind (deploy, sts, ds, job, pod), or kind/name. Exit code 1 when there is no such workload, and with
    --wait when what was waited for did not come.
    """
    kind, wanted = parse_resource(resource, name)
    access = Access(find_target(options.kubeconfig, options.context))
    prometheus = Prometheus(access, options.mesh_namespace)
    scope = None if all_namespaces else namespace
    deadline = time.monotonic() + wait
    while True:
        pods = access.list("v1", "Pod", scope or "", f"{labels.CONTROL_PLANE_NAMESPACE}={options.mesh_namespace}")
        rows = collect(pods, prometheus, options.mesh_namespace, kind, scope, window)
        rows = [row for row in rows if wanted in (None, row.name)]
        missing = unsettled(rows, youngest(pods, options.mesh_namespace, time.time()), seconds_of(window))
        if not missing or time.monotonic() >= deadline:
            break
        time.sleep(WAIT_PAUSE)
    if output == "json":
        print_json([row.as_dict() for row in rows])
    else:
        print_table(HEADINGS, [table_row(row) for row in rows], right=range(2, len(HEADINGS)))
    if not rows:
        what = f"{kind} {wanted}" if wanted else f"{kind} with a meshed pod"
        raise click.ClickException(f"no {what} in {'any namespace' if all_namespaces else f'namespace {namespace}'}")

    if wait and missing:
        raise click.ClickException(f"not within {wait:g} s: {missing}")


def seconds_of(window: str) -> int:
    """The length of a window such as 1m."""
    return int(window[:-1]) * SECONDS[window[-1]]


def youngest(pods: Iterable[Json], mesh: str, now: float) -> float:
    """Seconds since the last of the meshed pods was made; infinite without one."""
    made = [
        datetime.fromisoformat(str(pod["metadata"]["creationTimestamp"]).replace("Z", "+00:00")).timestamp()
        for pod in pods
        if is_meshed(pod, mesh) and is_live(pod)
    ]
    return now - max(made) if made else float("inf")


def unsettled(rows: list[Row], age: float, window: float) -> str:
    """What keeps the figures from being those of a mesh that is well, or nothing: traffic for a whole window of the
    youngest pod's life, every answer good, everything from meshed clients over mTLS.
    """
    busy = [row for row in rows if row.rps > 0]
    if not busy:
        return "no workload has answered a request"
    for row in busy:
        if row.success_rate != 1 or row.latency_ms_p99 is None:
            return f"{row.namespace}/{row.name} answered {percent(row.success_rate)} of its requests well"
        if row.mtls_share not in (None, 1):
            return f"{row.namespace}/{row.name} had {percent(row.mtls_share)} of its meshed clients' requests over mTLS"
    if all(row.mtls_share is None for row in busy):
        return "no meshed client has been seen"
    if age < window:
        return f"the youngest pod is {age:.0f} s old, and the window {window:g} s long"
    return ""


def table_row(row: Row) -> tuple[object, ...]:
    """A row as people read it."""

    def milliseconds(value: float | None) -> str | None:
        return None if value is None else f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"

    return (
        row.namespace,
        row.name,
        percent(row.success_rate),
        f"{row.rps:.1f}",
        milliseconds(row.latency_ms_p50),
        milliseconds(row.latency_ms_p95),
        milliseconds(row.latency_ms_p99),
        percent(row.mtls_share),
        f"{row.unmeshed_rps:.1f}",
        row.tcp_open_connections,
        f"{row.tcp_read_bytes_per_second:.0f}",
        f"{row.tcp_write_bytes_per_second:.0f}",
    )
