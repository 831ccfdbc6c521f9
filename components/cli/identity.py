"""`tulle identity`: who meshed pods are on the wire and how long their certificates last, as their proxies say."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click

from components.cli import exposition
from components.cli.access import Access
from components.cli.options import Globals, mesh_options
from components.cli.output import duration, output_option, print_json, print_table
from components.cli.queries import KINDS
from components.cli.target import find_target
from components.cli.workloads import is_live, is_meshed, owner_of
from components.deploy.errors import ClusterError
from proxy.api import labels

EXPIRY: Final = "control_identity_cert_expiration_timestamp_seconds"
PARALLEL: Final = 8
"""Most port-forwards at a time."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One pod's identity and the life of its leaf; `error` says why the life is not known, or why it is not good."""

    namespace: str
    pod: str
    workload: str
    identity: str
    expires: str | None
    seconds_left: int | None
    error: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def identity_name(pod: Mapping[str, Any]) -> str:
    """The name a pod asks its certificate for, as its proxy was told at injection."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    proxy: Mapping[str, Any] = next((c for c in containers if c.get("name") == labels.PROXY_CONTAINER), {})
    env = {entry["name"]: entry.get("value", "") for entry in proxy.get("env") or []}
    account = spec.get("serviceAccountName") or "default"
    mesh, domain = env.get("TULLE_PROXY_MESH_NAMESPACE", ""), env.get("TULLE_PROXY_TRUST_DOMAIN", "")
    return f"{account}.{pod['metadata']['namespace']}.serviceaccount.identity.{mesh}.{domain}"


def selects(pod: Mapping[str, Any], target: str | None) -> bool:
    """Whether `pod/x`, `deploy`, `deploy/x` or nothing means this pod."""
    if target is None:
        return True
    kind, _, name = target.partition("/")
    wanted = KINDS[kind]
    owner_kind, owner = ("pod", pod["metadata"]["name"]) if wanted == "pod" else owner_of(pod)
    return wanted == owner_kind and (not name or name == owner)


def certificate_of(access: Access, pod: Mapping[str, Any], now: float) -> Certificate:
    """Ask one pod's proxy for the life of its certificate."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    error, left, expires = "", None, None
    try:
        text = access.pod_get(namespace, name, labels.ADMIN_PORT, "/metrics").decode()
    except ClusterError as problem:
        error = problem.problem
    else:
        moment = exposition.value(text, EXPIRY)
        if not moment:
            error = "the proxy has no certificate"
        else:
            left = int(moment - now)
            expires = datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
            error = "" if left > 0 else "the certificate has expired"
    owner_kind, owner = owner_of(pod)
    return Certificate(namespace, name, f"{owner_kind}/{owner}", identity_name(pod), expires, left, error)


@click.command()
@click.argument("resource", required=False)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the pods.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Pods of all namespaces.")
@output_option
@mesh_options
def identity(options: Globals, resource: str | None, namespace: str, all_namespaces: bool, output: str) -> None:
    """Identity name and certificate expiry of each meshed pod.

    RESOURCE is a kind (pod, deploy, sts, ds, job) or kind/name; without it, every meshed pod of the namespace.
    """
    if resource is not None and resource.partition("/")[0] not in KINDS:
        raise click.BadParameter(f"{resource!r} is not kind or kind/name; kinds: {', '.join(KINDS)}")
    access = Access(find_target(options.kubeconfig, options.context))
    mesh = options.mesh_namespace
    selector = f"{labels.CONTROL_PLANE_NAMESPACE}={mesh}"
    pods = [
        pod
        for pod in access.list("v1", "Pod", "" if all_namespaces else namespace, selector)
        if is_meshed(pod, mesh) and is_live(pod) and selects(pod, resource)
    ]
    now = time.time()
    with ThreadPoolExecutor(PARALLEL) as pool:
        found = list(pool.map(lambda pod: certificate_of(access, pod, now), pods))
    found.sort(key=lambda certificate: (certificate.namespace, certificate.pod))
    if output == "json":
        print_json([certificate.as_dict() for certificate in found])
    else:
        print_table(
            ("NAMESPACE", "POD", "IDENTITY", "EXPIRES", "LEFT", "PROBLEM"),
            [
                (
                    c.namespace,
                    c.pod,
                    c.identity,
                    c.expires,
                    duration(c.seconds_left) if c.seconds_left else None,
                    c.error,
                )
                for c in found
            ],
        )
    if not found:
        raise click.ClickException("no meshed pod matches")
    if any(certificate.error for certificate in found):
        raise click.exceptions.Exit(1)
