"""I/O: one Kubernetes API server, asked by plain REST for objects of any kind.

Belongs here: addresses, verbs, server-side apply and the words for what went wrong. Does not belong here: what is
applied, or why.
"""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
from lightkube.config.client_adapter import ConnectionParams, verify_cluster
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

from components.deploy.errors import ClusterError
from components.deploy.refs import Manifest, Ref, Target

__all__ = ["Cluster", "Manifest", "Ref", "Target"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds: a context that does not answer is reported within this time instead of hanging a terminal."""
REQUEST_TIMEOUT: Final = 40.0
"""Seconds: above the API server's own 30 s for admission webhooks, so that its explanation wins over ours."""
RESTART_PATIENCE: Final = 30.0
"""Seconds for which an API server that did answer may be away: one that restarts must not end a deployment."""
RETRIED_STATUS: Final = frozenset({429, 503, 504})
CONFLICTS: Final = 8
"""Tries of a change that a controller's own writes to the same object come in between of."""
WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"})
APPLY: Final = "application/apply-patch+yaml"


def placeholder(live: Manifest) -> Manifest:
    """An entry of managedFields that owns no value: only that the object has labels, whichever they are."""
    return {
        "manager": "tulle-handover",
        "operation": "Update",
        "apiVersion": live["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}},
    }


class Cluster:
    """A connection to one API server; safe to share between threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._http = _connect(target)
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}
        self._lock = threading.Lock()
        self._answered = False

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def version(self) -> str:
        """The API server's version; also the cheapest proof that it answers."""
        return str(self.request("GET", "/version")["gitVersion"])

    def get(self, ref: Ref) -> Manifest | None:
        """The live object, or None."""
        try:
            return self.request("GET", self.path(ref))
        except ClusterError as error:
            if error.status == 404 or error.kind_absent:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str = "", selector: str = "") -> list[Manifest]:
        """All objects of a kind, in one namespace or (with none) everywhere."""
        path = self.path(Ref(api_version, kind, namespace, ""), collection=True)
        items = self.request("GET", path, params={"labelSelector": selector} if selector else {})["items"]
        return [{"apiVersion": api_version, "kind": kind, **item} for item in items]

    def apply(self, manifest: Manifest, manager: str, dry_run: bool = False) -> Manifest:
        """Server-side apply, as the one owner of every field in the manifest."""
        params = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            params["dryRun"] = "All"
        body = json.dumps(manifest)
        return self.request("PATCH", self.path(Ref.of(manifest)), params=params, body=body, content_type=APPLY)

    def create(self, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """Create; fails if the object exists."""
        params = {"dryRun": "All"} if dry_run else {}
        return self.request(
            "POST", self.path(Ref.of(manifest), collection=True), params=params, body=json.dumps(manifest)
        )

    def replace(self, manifest: Manifest) -> Manifest:
        """Put the whole object; with a resourceVersion in it, only if nobody changed it meanwhile."""
        return self.request("PUT", self.path(Ref.of(manifest)), body=json.dumps(manifest))

    def disown(self, ref: Ref, manager: str) -> None:
        """Give up every field that this manager applied, and leave the values as they are."""
        for attempt in range(CONFLICTS):
            live = self.get(ref)
            fields = (live or {}).get("metadata", {}).get("managedFields") or []
            others = [each for each in fields if (each.get("manager"), each.get("operation")) != (manager, "Apply")]
            if live is None or len(others) == len(fields):
                return
            # Where nobody manages anything, the API server gives all that there is to "before-first-apply" at the next
            # apply, and has that conflict with every later change. So somebody holds a thing that never conflicts.
            live["metadata"]["managedFields"] = others or [placeholder(live)]
            try:
                self.replace(live)
                return
            except ClusterError as error:
                if error.status != 409 or attempt == CONFLICTS - 1:
                    raise

    def delete(self, ref: Ref, uid: str = "") -> bool:
        """Ask for deletion (of the object with this UID only, if given); False if it is not there."""
        # In the foreground a workload is gone only when its pods are; other kinds would wait for the collector in vain.
        policy = "Foreground" if ref.kind in WORKLOADS else "Background"
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", self.path(ref), body=json.dumps(options))
        except ClusterError as error:
            if error.status == 404 or error.kind_absent or (uid and error.status == 409):
                return False
            raise
        return True

    def path(self, ref: Ref, collection: bool = False) -> str:
        """The URL path of an object, by discovery of its kind's plural name and scope."""
        plural, namespaced = self._discover(ref.api_version, ref.kind)
        parts = [_base(ref.api_version)]
        if namespaced and ref.namespace:
            parts += ["namespaces", ref.namespace]
        parts.append(plural)
        if not collection:
            parts.append(ref.name)
        return "/".join(parts)

    def namespaced(self, api_version: str, kind: str) -> bool:
        """Whether objects of this kind live in namespaces."""
        return self._discover(api_version, kind)[1]

    def request(
        self,
        verb: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: str | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """One request; raises ClusterError with the API server's own words."""
        headers = {"Content-Type": content_type} if body is not None else {}
        refused_since = 0.0
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._http.request(verb, path, params=dict(params or {}), content=body, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused_since = refused_since or time.monotonic()
                if self._answered and time.monotonic() - refused_since < RESTART_PATIENCE:
                    time.sleep(1.0)
                    continue
                raise ClusterError(
                    f"{self.target} does not answer: {error}",
                    "Start that cluster (the local one: `make up`), or name another with --context and --kubeconfig.",
                ) from error
            except httpx.HTTPError as error:
                if attempt < 3 and verb != "POST":
                    continue
                raise ClusterError(f"{verb} {path} on {self.target} failed: {error!r}") from error
            if response.status_code in RETRIED_STATUS and attempt < 3:
                time.sleep(0.5 * attempt)
                continue
            break
        self._answered = True
        if response.is_success:
            answer: Manifest = response.json()
            return answer
        raise _refusal(verb, path, response)

    def _discover(self, api_version: str, kind: str) -> tuple[str, bool]:
        with self._lock:
            known = self._kinds.get(api_version, {})
            if kind not in known:
                try:
                    resources = self.request("GET", _base(api_version))["resources"]
                except ClusterError as error:
                    if error.status != 404:
                        raise
                    resources = []
                known = {r["kind"]: (r["name"], r["namespaced"]) for r in resources if "/" not in r["name"]}
                self._kinds[api_version] = known
        if kind not in known:
            raise ClusterError(f"the cluster does not serve {api_version} {kind}", reason="KindAbsent")
        return known[kind]


def _base(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _connect(target: Target) -> httpx.Client:
    path = Path(target.kubeconfig).expanduser()
    way_out = "Name a file with --kubeconfig and one of its contexts with --context; `make up` makes the local ones."
    if not path.is_file():
        raise ClusterError(f"kubeconfig {target.kubeconfig} does not exist", way_out)
    try:
        config = KubeConfig.from_file(path)
        chosen = config.get(target.context)
    except ConfigError as error:
        known = ", ".join(sorted(config.contexts)) if "config" in locals() else ""
        raise ClusterError(f"kubeconfig {path}: {error}", f"{way_out} It has: {known or 'none'}.") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ClusterError(f"kubeconfig {path} cannot be read: {error!r}", way_out) from error
    except Exception as error:  # yaml's and msgspec's own errors share no base class
        raise ClusterError(f"kubeconfig {path} is not a kubeconfig: {error}", way_out) from error
    assert chosen is not None
    timeout = httpx.Timeout(REQUEST_TIMEOUT, connect=CONNECT_TIMEOUT)
    # A proxy of the environment is for the world outside; kubeconfig names the way to a cluster completely.
    parameters = ConnectionParams(timeout=timeout, trust_env=False)
    try:
        if chosen.user is None:
            verify = verify_cluster(chosen.cluster, _nobody(), chosen.abs_file, trust_env=False)
            return httpx.Client(base_url=chosen.cluster.server, verify=verify, timeout=timeout, trust_env=False)
        return httpx.Client(**parameters.httpx_params(chosen))
    except (OSError, ConfigError) as error:
        raise ClusterError(f"{target}: {error}", way_out) from error


def _nobody() -> Any:
    from lightkube.config.models import User

    return User()


def _refusal(verb: str, path: str, response: httpx.Response) -> ClusterError:
    message, reason = response.text[:500], ""
    with contextlib.suppress(ValueError):
        status = response.json()
        if isinstance(status, dict):
            message, reason = str(status.get("message", message)), str(status.get("reason", ""))
    way_out = ""
    if response.status_code in (401, 403):
        way_out = "Use a context whose user may manage these objects (cluster-admin for a whole mesh)."
    return ClusterError(f"{verb} {path}: {message}", way_out, response.status_code, reason)
