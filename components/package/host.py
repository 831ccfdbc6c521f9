"""The component provider host: what it offers, under which name and version."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

import pulumi
from pulumi.provider.experimental import component_provider_host

from components.injector.resource import MeshedNamespace
from components.package.external import ExternalWorkload
from components.package.mesh import Mesh
from components.package.parts import CertificateAuthority, ControlPlane, Prometheus
from components.package.workload import MeshedWorkload

NAME: Final = "tulle"
COMPONENTS: Final[list[type[pulumi.ComponentResource]]] = [
    Mesh,
    CertificateAuthority,
    ControlPlane,
    Prometheus,
    MeshedNamespace,
    MeshedWorkload,
    ExternalWorkload,
]


def package_version() -> str:
    """The installed package's, or none in particular."""
    try:
        return version("tulle")
    except PackageNotFoundError:
        return "0.0.0"


def serve() -> None:
    """Serve the components to Pulumi's engine."""
    component_provider_host(COMPONENTS, NAME, version=package_version())
