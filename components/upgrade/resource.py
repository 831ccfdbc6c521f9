"""The running data plane as a resource: with `upgrade.restart`, a deployment that changes the proxies' image also
brings running proxies to it, under both deployers alike. It waits for everything else of the mesh.
"""

import sys
import threading
from dataclasses import asdict
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.args import MeshSettings
from components.upgrade.settings import Settings, settings_of


class DataPlaneProvider(ResourceProvider):
    """Restarts what has older proxies. A run that stops or is killed leaves the old image recorded, so that the next
    deployment goes on.
    """

    serialize_as_secret_always = False
    stopping: threading.Event | None = None
    """Set by the embedded deployer, so that whoever interrupts a deployment ends the waves too."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Bring all proxies to the declared image: on a new mesh there is nothing to do."""
        _upgrade(props, self.stopping)
        return CreateResult("data-plane", dict(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Bring all proxies to the new image."""
        _upgrade(props, self.stopping)
        return UpdateResult(dict(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Other images are what there is to do; how they are brought is no state."""
        # Recorded before there were revisions, it has none.
        before, now = ((each.get("image"), each.get("revisions") or {}) for each in (olds, news))
        return DiffResult(changes=before != now)


class DataPlane(Resource, module="tulle", name="DataPlane"):
    """All running proxies of the stack's meshed namespaces."""

    def __init__(self, name: str, mesh: MeshSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        cluster = {"kubeconfig": mesh["cluster"]["kubeconfig"], "context": mesh["cluster"]["context"]}
        settings = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings_of(mesh)).items()
        }
        super().__init__(DataPlaneProvider(), name, {**cluster, **settings}, opts)


def _upgrade(props: dict[str, Any], stopping: threading.Event | None) -> None:
    import contextlib

    from components.cli.access import Access
    from components.deploy.refs import Target
    from components.upgrade.running import Upgrade, measure_of

    given = {key: props[key] for key in Settings.__annotations__}
    # Numbers may come back from an engine as doubles, tuples as lists.
    numbers = {key: int(given[key]) for key in ("percent", "pause", "tolerance")}
    lists = {key: tuple(map(str, given[key])) for key in ("namespaces", "first")}
    settings = Settings(**{**given, **numbers, **lists})
    with contextlib.closing(Access(Target(str(props["kubeconfig"]), str(props["context"])))) as access:
        measure = measure_of(access, settings)
        Upgrade(access, settings, measure, lambda line: print(line, file=sys.stderr), stopping).run()
