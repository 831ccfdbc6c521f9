"""I/O: instant queries to the mesh's Prometheus, through a port-forward to its pod, or to another one. What is queried
is in `queries`.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from components.cli.access import Access
from components.deploy.errors import ClusterError
from components.deploy.refs import Ref
from proxy.api import labels

PORT: Final = 9090
SELECTOR: Final = f"{labels.COMPONENT}=prometheus"


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """The mesh's Prometheus, found once."""

    def __init__(self, access: Access, mesh_namespace: str) -> None:
        self._access = access
        self._namespace = mesh_namespace
        self._pod = ""

    def query(self, promql: str) -> list[Sample]:
        """An instant vector; raises ClusterError when Prometheus cannot be asked or refuses the query."""
        path = f"/api/v1/query?query={quote(promql)}"
        pod = self._pod or self._find()
        return decode(self._access.pod_get(self._namespace, pod, PORT, path))

    def _find(self) -> str:
        pods = self._access.list("v1", "Pod", self._namespace, SELECTOR)
        ready = [pod for pod in pods if is_ready(pod)]
        if not ready:
            raise ClusterError(
                f"no ready Prometheus pod (label {SELECTOR}) in namespace {self._namespace}",
                "See `tulle check`; with an external Prometheus, query that one.",
            )
        self._pod = str(ready[0]["metadata"]["name"])
        return self._pod


class OtherPrometheus:
    """A Prometheus that is not the mesh's: through the API server where its address is a Service's, else directly."""

    def __init__(self, access: Access, url: str) -> None:
        self._access = access
        self._url = url.rstrip("/")

    def query(self, promql: str) -> list[Sample]:
        """An instant vector; raises ClusterError when Prometheus cannot be asked or refuses the query."""
        if path := self._service():
            return decode(self._access.text(f"{path}/api/v1/query", query=promql).encode())
        import httpx2 as httpx

        try:
            response = httpx.get(f"{self._url}/api/v1/query", params={"query": promql}, timeout=30)
        except httpx.HTTPError as error:
            raise ClusterError(
                f"Prometheus at {self._url} cannot be asked from here: {error!r}",
                "Give an address that answers here, for this run alone: -c prometheus.url=...",
            ) from error
        return decode(response.content)

    def _service(self) -> str:
        """The API server's way to the Service that the address names (`name.namespace`), if there is one."""
        parts = urlsplit(self._url)
        name, _, rest = (parts.hostname or "").partition(".")
        namespace = rest.partition(".")[0]
        if not namespace or self._access.get(Ref("v1", "Service", namespace, name)) is None:
            return ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        scheme = "https:" if parts.scheme == "https" else ""
        return f"/api/v1/namespaces/{namespace}/services/{scheme}{name}:{port}/proxy{parts.path}"


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod serves: Ready and not on its way out."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def decode(answer: bytes) -> list[Sample]:
    """The vector in an answer of Prometheus' HTTP API; NaN, which is what 0/0 gives, is left out."""
    try:
        document = json.loads(answer)
    except ValueError as error:
        raise ClusterError(f"Prometheus did not answer with JSON: {error}") from error
    if document.get("status") != "success":
        raise ClusterError(f"Prometheus refused the query: {document.get('error', 'no reason given')}")
    samples = [Sample(item["metric"], float(item["value"][1])) for item in document["data"]["result"]]
    return [sample for sample in samples if math.isfinite(sample.value)]
