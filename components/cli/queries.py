"""What `tulle stat` asks of Prometheus and the rows it makes of the answers: pure.

Definitions. Success, rate and latency are measured at the workload's own inbound proxies. The mTLS share is measured at
its meshed clients' outbound proxies, since only they know that a plaintext request came from a meshed client. Requests
of the kubelet's probes (route_name="probe") and Prometheus' scrapes are left out everywhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from proxy.api import labels

KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("deploy", "deployment", "deployments"), "deployment"),
    **dict.fromkeys(("sts", "statefulset", "statefulsets"), "statefulset"),
    **dict.fromkeys(("ds", "daemonset", "daemonsets"), "daemonset"),
    **dict.fromkeys(("job", "jobs"), "job"),
    **dict.fromkeys(("po", "pod", "pods"), "pod"),
}
"""What a user may type -> the name of the label that Prometheus and discovery use."""

INBOUND: Final = 'direction="inbound",route_name!="probe"'
SERVER: Final = 'direction="inbound",peer="src"'

Key = tuple[str, str]
"""Namespace and name of a workload."""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload's figures over the window. None: there was nothing to measure."""

    namespace: str
    kind: str
    name: str
    success_rate: float | None
    rps: float
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    latency_ms_p99: float | None
    mtls_share: float | None
    unmeshed_rps: float
    tcp_open_connections: int
    tcp_read_bytes_per_second: float
    tcp_write_bytes_per_second: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def stat_queries(kind: str, namespace: str | None, window: str) -> dict[str, str]:
    """PromQL by the name of the figure. `kind` is a value of KINDS; no namespace means all of them."""
    here = f',namespace="{namespace}"' if namespace else ""
    there = f',dst_namespace="{namespace}"' if namespace else ""
    own = f'{kind}!=""'
    peer = f'dst_{kind}!=""'

    def rate(family: str, selector: str, by: str) -> str:
        return f"sum by ({by}) (rate({family}{{{selector}}}[{window}]))"

    inbound = f"{INBOUND},{own}{here}"
    server = f"{SERVER},{own}{here}"
    # Prometheus reads proxies' metrics through its own proxy: the mesh's traffic, not the workload's.
    outbound = f'direction="outbound",target_port!="{labels.ADMIN_PORT}",{peer}{there}'
    by, by_peer = f"namespace,{kind}", f"dst_namespace,dst_{kind}"
    result = {
        "responses": rate("response_total", inbound, by),
        "successes": rate("response_total", f'{inbound},classification="success"', by),
        "unmeshed": rate("request_total", f'{inbound},tls!="true"', by),
        "from_mesh": rate("request_total", outbound, by_peer),
        "from_mesh_mtls": rate("request_total", f'{outbound},tls="true"', by_peer),
        "open": f"sum by ({by}) (tcp_open_connections{{{server}}})",
        "read": rate("tcp_read_bytes_total", server, by),
        "write": rate("tcp_write_bytes_total", server, by),
    }
    for percent in (50, 95, 99):
        buckets = rate("response_latency_ms_bucket", inbound, f"{by},le")
        result[f"p{percent}"] = f"histogram_quantile(0.{percent}, {buckets})"
    return result


def vectors_by_key(kind: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> dict[Key, float]:
    """One figure of every workload, whether it was measured at the workload or at its clients."""
    return {
        (
            found.get("namespace") or found.get("dst_namespace", ""),
            found.get(kind) or found.get(f"dst_{kind}", ""),
        ): value
        for found, value in samples
    }


def rows_of(kind: str, workloads: Iterable[Key], figures: Mapping[str, Mapping[Key, float]]) -> list[Row]:
    """A row for each workload, in order of namespace and name; figures of workloads that are gone are left out."""

    def share(part: str, whole: str, key: Key) -> float | None:
        total = figures[whole].get(key, 0.0)
        return min(1.0, round(figures[part].get(key, 0.0) / total, 6)) if total > 0 else None

    def latency(percent: str, key: Key) -> float | None:
        value = figures[percent].get(key)
        return None if value is None else round(value, 3)

    return [
        Row(
            namespace=key[0],
            kind=kind,
            name=key[1],
            success_rate=share("successes", "responses", key),
            rps=round(figures["responses"].get(key, 0.0), 3),
            latency_ms_p50=latency("p50", key),
            latency_ms_p95=latency("p95", key),
            latency_ms_p99=latency("p99", key),
            mtls_share=share("from_mesh_mtls", "from_mesh", key),
            unmeshed_rps=round(figures["unmeshed"].get(key, 0.0), 3),
            tcp_open_connections=round(figures["open"].get(key, 0.0)),
            tcp_read_bytes_per_second=round(figures["read"].get(key, 0.0), 3),
            tcp_write_bytes_per_second=round(figures["write"].get(key, 0.0), 3),
        )
        for key in sorted(workloads)
    ]
