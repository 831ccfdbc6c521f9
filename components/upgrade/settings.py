"""What a stack says of its upgrades, as plain values that a resource can carry: pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.args import MeshSettings

DEMO = "demo"
"""The demo's meshed namespace."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One stack's upgrades."""

    mesh_namespace: str
    image: str
    """The proxy image that the stack declares."""
    revisions: Mapping[str, str]
    """The same of each control plane beside the mesh's own."""
    namespaces: tuple[str, ...]
    """The stack's meshed namespaces, made or adopted."""
    first: tuple[str, ...]
    """Those that come first, in order."""
    percent: int
    """Per cent of a namespace's workloads in one wave."""
    pause: int
    """Seconds between waves, which are also the window of the figures."""
    tolerance: int
    """Per cent by which success may fall; 100 measures nothing."""
    prometheus: bool
    """There is one to ask."""
    prometheus_url: str
    """Address of somebody else's; empty for the mesh's own."""


def settings_of(mesh: MeshSettings) -> Settings:
    """What the settings of a mesh say."""
    upgrade, telemetry = mesh["upgrade"], mesh["telemetry"]
    own = [*mesh["meshed_namespaces"], *mesh["adopted_namespaces"], *([DEMO] if mesh["demo"]["enabled"] else [])]
    return Settings(
        mesh_namespace=mesh["names"]["mesh_namespace"],
        image=mesh["images"]["proxy"],
        revisions={name: images["proxy"] for name, images in mesh["revisions"].items()},
        namespaces=tuple(own),
        first=tuple(upgrade["first"]),
        percent=upgrade["percent"],
        pause=upgrade["pause"],
        tolerance=upgrade["tolerance"],
        prometheus=telemetry["enabled"] or bool(telemetry["url"]),
        prometheus_url=telemetry["url"],
    )
