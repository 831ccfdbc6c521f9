"""The cluster, and namespaces on it. Without a cluster these tests are skipped, loudly; in CI as root that is a
failure.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.cli.check import run_checks
from components.deploy.errors import DeployError
from tests.kit import objects
from tests.kit.cluster import MESH, Kube
from tests.kit.waiting import until

RUN_LABEL = "tulle.io/test-run"
NewNamespace = Callable[[bool], str]


def unavailable(reason: str) -> None:
    """Skip, or fail where a skip would hide that nothing was tested."""
    if os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(f"end-to-end tests cannot run: {reason}", pytrace=False)
    pytest.skip(f"end-to-end test: {reason}")


def begun(process: str) -> str:
    """A process by its number and the moment it began: the number alone comes again."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{process}-{fields[19]}"


def remove_what_a_killed_run_left(kube: Kube) -> None:
    """A run that was killed takes nothing down, and its load would run beside this run's for ever."""
    for found in kube.list("v1", "Namespace", selector=RUN_LABEL):
        run = found["metadata"]["labels"][RUN_LABEL]
        if begun(run.partition("-")[0]) != run:
            kube.remove_namespace(found["metadata"]["name"])


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The local cluster with a mesh on it that is well."""
    if reason := Kube.missing():
        unavailable(reason)
    try:
        cluster = Kube()
        cluster.version()
    except DeployError as error:
        unavailable(error.problem)
        raise AssertionError from error

    remove_what_a_killed_run_left(cluster)

    def well() -> bool:
        findings = [finding for finding in run_checks(cluster, MESH) if finding.status == "error"]
        well.problems = "; ".join(f"{finding.name}: {finding.message}" for finding in findings)  # type: ignore[attr-defined]
        return not findings

    try:
        until("a mesh that `tulle check` calls well", well, 120, 2)
    except AssertionError:
        unavailable(f"the mesh is not well: {well.problems}")  # type: ignore[attr-defined]
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def image(kube: Kube) -> str:
    """The image that holds the demo's programs."""
    return kube.image()


@pytest.fixture(scope="session")
def removed(kube: Kube) -> Iterator[list[str]]:
    """Namespaces whose deletion was asked for; waited for once, at the end, while the tests after them go on."""
    names: list[str] = []
    yield names
    for name in names:
        kube.gone(name)


@pytest.fixture
def new_namespace(kube: Kube, removed: list[str]) -> Iterator[NewNamespace]:
    """Makes namespaces, meshed or not, that go after the test."""
    made: list[str] = []

    def make(meshed: bool) -> str:
        name = f"test-{'meshed' if meshed else 'plain'}-{secrets.token_hex(3)}"
        made.append(name)
        manifest = objects.namespace(name, meshed)
        manifest["metadata"]["labels"][RUN_LABEL] = begun(str(os.getpid()))
        kube.put(manifest)
        return name

    yield make
    for name in made:
        kube.remove_namespace(name)
    removed += made


@pytest.fixture
def meshed(new_namespace: NewNamespace) -> str:
    """A meshed namespace."""
    return new_namespace(True)


@pytest.fixture
def plain(new_namespace: NewNamespace) -> str:
    """A namespace outside the mesh."""
    return new_namespace(False)
