"""The mesh as a component package: what other Pulumi programs import, in Python or, by the component provider host, in
any of Pulumi's languages.

Belongs here: components whose arguments are a flat TypedDict, and their host. Does not belong here: how the mesh is
composed (`components.mesh`). No module here may begin with `from __future__ import annotations`: the host reads types.
"""

from components.injector.resource import MeshedNamespace
from components.package.external import ExternalWorkload
from components.package.mesh import Mesh
from components.package.parts import CertificateAuthority, ControlPlane, Prometheus
from components.package.workload import MeshedWorkload

__all__ = [
    "CertificateAuthority",
    "ControlPlane",
    "ExternalWorkload",
    "Mesh",
    "MeshedNamespace",
    "MeshedWorkload",
    "Prometheus",
]
