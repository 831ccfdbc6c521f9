"""`tulle version`: of this client, of the control plane's components and of the proxies that run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import click

from components.cli.options import Globals, mesh_options
from components.cli.output import output_option, print_json, print_table
from components.cli.workloads import is_live, is_meshed
from proxy.api import labels


def client_version() -> str:
    """The installed package's version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("tulle")
    except PackageNotFoundError:
        return "unknown (not installed)"


def component_versions(deployments: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Image tag or digest by component: what the control plane really runs."""
    found = {}
    for deployment in deployments:
        name = deployment["metadata"]["name"]
        containers = deployment["spec"]["template"]["spec"]["containers"]
        own = [container for container in containers if container["name"] != labels.PROXY_CONTAINER]
        found[name] = image_version(own[0]["image"]) if own else "unknown"
    return dict(sorted(found.items()))


def image_version(image: str) -> str:
    """The part of an image reference that says which build it is."""
    _, at, digest = image.partition("@")
    if at:
        return digest
    last = image.rpartition("/")[2]
    return last.partition(":")[2] or "latest"


def proxy_versions(pods: Iterable[Mapping[str, Any]], mesh_namespace: str) -> dict[str, int]:
    """How many live proxies there are of each version."""
    found = Counter(
        (pod["metadata"].get("annotations") or {}).get(labels.PROXY_VERSION, "unknown")
        for pod in pods
        if is_meshed(pod, mesh_namespace) and is_live(pod)
    )
    return dict(sorted(found.items()))


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only this client's version; asks no cluster.")
@output_option
@mesh_options
def version(options: Globals, client_only: bool, output: str) -> None:
    """Versions of client, control plane and proxies."""
    document: dict[str, Any] = {"client": client_version()}
    if not client_only:
        from components.cli.access import Access
        from components.cli.target import find_target

        access = Access(find_target(options.kubeconfig, options.context))
        selector = f"{labels.CONTROL_PLANE_NAMESPACE}={options.mesh_namespace}"
        deployments = access.list("apps/v1", "Deployment", options.mesh_namespace)
        document["kubernetes"] = access.version()
        document["control_plane"] = component_versions(deployments)
        document["proxies"] = proxy_versions(access.list("v1", "Pod", "", selector), options.mesh_namespace)
    if output == "json":
        print_json(document)
        return
    rows: list[tuple[object, ...]] = [("client", "", document["client"])]
    if not client_only:
        rows.append(("kubernetes", "", document["kubernetes"]))
        rows += [("control plane", name, tag) for name, tag in document["control_plane"].items()]
        rows += [("proxies", f"{count} running", tag) for tag, count in document["proxies"].items()]
    print_table(("WHAT", "WHICH", "VERSION"), rows)
