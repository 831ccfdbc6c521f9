"""A Kubernetes API server in memory, over real HTTP, for whole deployments without a cluster: server-side apply with
field managers, dry runs, conflicts; every workload is ready at once and every pod that is tried on comes back injected.

It knows no admission, no validation and no garbage collection: those are proven on the local cluster.
"""

import copy
import json
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from components.deploy import project
from components.deploy.project import Project
from components.deploy.refs import Target
from proxy.api import labels
from tests.iac.kit import ROOT

Json = dict[str, Any]
Key = tuple[str, str, str]
KINDS: Final = {
    "v1": {
        "Namespace": ("namespaces", False),
        "ServiceAccount": ("serviceaccounts", True),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "Pod": ("pods", True),
    },
    "apps/v1": {
        "Deployment": ("deployments", True),
        "ReplicaSet": ("replicasets", True),
        "StatefulSet": ("statefulsets", True),
        "DaemonSet": ("daemonsets", True),
    },
    "batch/v1": {"Job": ("jobs", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "rbac.authorization.k8s.io/v1": {
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
    },
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": ("customresourcedefinitions", False)},
    "example.tulle.io/v1": {"Widget": ("widgets", True)},
    "workload.linkerd.io/v1beta1": {"ExternalWorkload": ("externalworkloads", True)},
    "admissionregistration.k8s.io/v1": {"MutatingWebhookConfiguration": ("mutatingwebhookconfigurations", False)},
}
PATH: Final = re.compile(
    r"/apis?/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?P<status>/status)?$"
)
GROUP: Final = re.compile(r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))$")


class RestApi:
    """What is stored, and every write that was made."""

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.writes: list[tuple[str, str]] = []
        self.bodies: list[str] = []
        self._applied: dict[tuple[Key, str], Json] = {}
        self._version = 0
        self._lock = threading.Lock()

    def get(self, plural: str, name: str, namespace: str = "") -> Json | None:
        """One stored object."""
        return self.objects.get((plural, namespace, name))

    def put(self, plural: str, body: Json, namespace: str = "") -> None:
        """Store an object, as a controller would."""
        with self._lock:
            body = copy.deepcopy(body)
            body["metadata"].setdefault("namespace", namespace)
            self._store((plural, namespace, body["metadata"]["name"]), body, dry=False)

    def versions(self) -> dict[Key, str]:
        """Every object's resource version."""
        return {key: body["metadata"]["resourceVersion"] for key, body in self.objects.items()}

    def answer(self, verb: str, target: str, body: str) -> tuple[int, Json]:
        """One request."""
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/version":
            return 200, {"gitVersion": "v1.34.4", "major": "1", "minor": "34"}
        if group := GROUP.match(parts.path):
            kinds = KINDS.get(group["core"] or group["group"], {})
            return 200, {"resources": [{"kind": k, "name": n, "namespaced": s} for k, (n, s) in kinds.items()]}
        match = PATH.match(parts.path)
        if match is None:
            return _refusal(404, "NotFound", f"no path {parts.path}")
        with self._lock:
            return self._object(verb, match, query, json.loads(body or "null"))

    def _object(self, verb: str, match: re.Match[str], query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        namespace, plural, name = match["namespace"] or "", match["plural"], match["name"] or ""
        dry = query.get("dryRun") == "All"
        if verb == "GET" and not name:
            return 200, {"items": list(self._listed(plural, namespace, query.get("labelSelector", "")))}
        if verb != "GET" and not dry:
            self.writes.append((verb, f"{plural}/{namespace}/{name or (body or {}).get('metadata', {}).get('name')}"))
            self.bodies.append(json.dumps(body))
        absent = namespace not in ("", "kube-system") and ("namespaces", "", namespace) not in self.objects
        if verb != "GET" and absent:
            return _refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if verb == "POST":
            return self._create((plural, namespace, body["metadata"].get("name", "")), body, dry)
        key = (plural, namespace, name)
        found = self.objects.get(key)
        if verb == "PATCH":
            return 200, self._apply(key, body, query["fieldManager"], dry)
        if found is None:
            return _refusal(404, "NotFound", f"{plural} {name!r} not found")
        if verb == "PUT":
            asked = body["metadata"].get("resourceVersion")
            if asked and asked != found["metadata"]["resourceVersion"]:
                return _refusal(409, "Conflict", "the object has been modified")
            if match["status"]:
                return 200, self._set_status(key, body.get("status", {}))
            metadata = {**found["metadata"], **body["metadata"]}
            metadata["managedFields"] = [each for each in metadata.get("managedFields", []) if each]
            return 200, self._store(key, {**body, "metadata": metadata}, dry)
        if verb == "DELETE":
            del self.objects[key]
            return 200, {"kind": "Status"}
        return 200, copy.deepcopy(found)

    def _create(self, key: Key, body: Json, dry: bool) -> tuple[int, Json]:
        if key[0] == "pods" and dry:
            body["spec"]["containers"].append({"name": labels.PROXY_CONTAINER})
            return 201, body
        if key in self.objects:
            return _refusal(409, "AlreadyExists", f"{key[0]} {key[2]!r} already exists")
        return 201, self._store(key, body, dry)

    def _apply(self, key: Key, body: Json, manager: str, dry: bool) -> Json:
        """Server-side apply: what this manager gave up goes, what it says is merged in; lists are whole."""
        before = copy.deepcopy(self.objects.get(key) or {"metadata": {}})
        merged = _merge(_without(before, self._applied.get((key, manager), {}), body), body)
        managers = [entry for entry in before["metadata"].get("managedFields", []) if entry["manager"] != manager]
        merged["metadata"]["managedFields"] = [*managers, {"manager": manager, "operation": "Apply"}]
        if not dry:
            self._applied[key, manager] = copy.deepcopy(body)
        return self._store(key, merged, dry)

    def _store(self, key: Key, body: Json, dry: bool) -> Json:
        before = self.objects.get(key)
        stored = {**copy.deepcopy(body), **_status(body)}
        metadata = stored["metadata"]
        if before is not None and _bare(before) == _bare(stored):
            return copy.deepcopy(before)
        generation = int((before or {"metadata": {}})["metadata"].get("generation", 0))
        if before is None or before.get("spec") != stored.get("spec"):
            generation += 1
        if not dry:
            self._version += 1
        known = (before or body)["metadata"].get("uid")
        metadata["uid"] = known or f"uid-{self._version}"
        metadata |= {"generation": generation, "resourceVersion": str(self._version)}
        metadata.setdefault("creationTimestamp", "2026-11-23T00:00:00Z")
        if "status" in stored:
            stored["status"]["observedGeneration"] = generation
        if not dry:
            self.objects[key] = stored
        return copy.deepcopy(stored)

    def _set_status(self, key: Key, status: Json) -> Json:
        self._version += 1
        stored = {**self.objects[key], "status": copy.deepcopy(status)}
        stored["metadata"] = {**stored["metadata"], "resourceVersion": str(self._version)}
        self.objects[key] = stored
        return copy.deepcopy(stored)

    def _listed(self, plural: str, namespace: str, selector: str) -> Iterator[Json]:
        wanted = [part.partition("=") for part in selector.split(",") if part]
        for (kind, place, _), body in sorted(self.objects.items()):
            given = body["metadata"].get("labels") or {}
            here = kind == plural and (not namespace or place == namespace)
            # A key alone asks for any value.
            if here and all(key in given and value in ("", given[key]) for key, _, value in wanted):
                yield copy.deepcopy(body)


def unguarded(folder: Path) -> Project:
    """This project without its policies, whose plan would double the time of every deployment."""
    for name in ("Pulumi.yaml", "Pulumi.local.yaml", "Pulumi.prod.yaml", "__main__.py"):
        shutil.copy(ROOT / name, folder / name)
    return project.load(folder)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[RestApi, Target]]:
    """A server on loopback, and a kubeconfig for it."""
    api = RestApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            status, answer = api.answer(self.command, self.path, self.rfile.read(length).decode())
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kubeconfig = folder / "kubeconfig"
    address = f"http://127.0.0.1:{server.server_address[1]}"
    document = {
        "current-context": "memory",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "contexts": [{"name": "memory", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    kubeconfig.write_text(json.dumps(document))
    try:
        yield api, Target(str(kubeconfig), "memory")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _status(body: Json) -> Json:
    """What a cluster in which everything works at once would say."""
    replicas = (body.get("spec") or {}).get("replicas", 1)
    if body.get("kind") == "Namespace":
        return {"status": {"phase": "Active"}}
    if body.get("kind") in ("Deployment", "StatefulSet"):
        ready = {"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
        return {"status": {**ready, "readyReplicas": replicas}}
    if body.get("kind") == "CustomResourceDefinition":
        return {"status": {"conditions": [{"type": "Established", "status": "True"}]}}
    if body.get("kind") == "Job":
        return {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    return {}


def _bare(body: Json) -> Json:
    metadata = {k: v for k, v in body["metadata"].items() if k not in _SERVER}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": metadata}


_SERVER: Final = frozenset({"uid", "generation", "resourceVersion", "creationTimestamp"})


def _merge(base: Any, more: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(more, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in more.items()}}
    return copy.deepcopy(more)


def _without(live: Json, applied: Json, wanted: Json) -> Json:
    """The live object less the fields that were applied before and are no longer wanted."""
    kept: Json = {}
    for key, value in live.items():
        if key not in applied or key in ("apiVersion", "kind", "name", "namespace"):
            kept[key] = value
        elif isinstance(value, dict) and isinstance(applied[key], dict):
            # Fields of others in the same mapping stay.
            inner = _without(value, applied[key], wanted.get(key) or {})
            if inner or key in wanted:
                kept[key] = inner
        elif key in wanted:
            kept[key] = value
    return kept


def _refusal(code: int, reason: str, message: str) -> tuple[int, Json]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}
