"""What a killed run of these tests has left is found by the next; what a living one uses is left alone."""

from components.deploy.refs import Ref
from tests.kit import objects
from tests.kit.cluster import Kube
from tests.kube.conftest import RUN_LABEL, remove_what_a_killed_run_left


def test_only_namespaces_of_runs_that_are_no_more_go(kube: Kube, plain: str, removed: list[str]) -> None:
    # The first process of a machine began at no such moment.
    manifest = objects.namespace("test-plain-left", meshed=False)
    manifest["metadata"]["labels"][RUN_LABEL] = "1-none"
    kube.put(manifest)
    removed.append("test-plain-left")
    remove_what_a_killed_run_left(kube)

    def going(name: str) -> bool:
        found = kube.get(Ref("v1", "Namespace", "", name))
        return found is None or "deletionTimestamp" in found["metadata"]

    assert going("test-plain-left")
    assert not going(plain)
