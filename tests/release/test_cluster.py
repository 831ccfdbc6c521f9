"""Images and manifest on the local cluster: loaded into its containerd and removed, tried on its API server."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.deploy.target import local_kubeconfig
from proxy.api import labels
from tests.bench.root import Runtime, state_folder
from tests.kit.cluster import Kube
from tests.kit.lines import App
from tests.kit.topology import Mesh
from tests.release.conftest import REGISTRY, Release, run

pytestmark = pytest.mark.e2e
CTR = ("ctr", "--address", str(state_folder() / "run/containerd/containerd.sock"), "--namespace", "k8s.io", "images")


@pytest.fixture(scope="module")
def loaded(release: Release) -> Iterator[dict[str, str]]:
    """The archive's images in the cluster's containerd: name -> digest."""
    if reason := Kube.missing():
        pytest.skip(reason)
    run(*CTR, "import", str(release.file("images.oci.tar")))
    rows = [line.split() for line in run(*CTR, "ls").stdout.splitlines()[1:]]
    found = {row[0]: row[2] for row in rows if row[0].startswith(f"{REGISTRY}/")}
    yield found
    # The layers stay: the mesh's own images have them too.
    run(*CTR, "rm", *found)


def test_the_archive_holds_what_the_manifests_name(loaded: dict[str, str], release: Release) -> None:
    assert set(loaded) == {f"{REGISTRY}/{name}:{release.version}" for name in ("proxy", "control", "prometheus")}
    wanted = {f"{name.rpartition(':')[0]}@{digest}" for name, digest in loaded.items()}
    text = release.file("install-dev.yaml").read_text()
    assert wanted == set(re.findall(r"(?m)^\s+(?:- )?image: (\S+)$", text))


def test_the_proxy_of_the_archive_carries_a_request(loaded: dict[str, str], release: Release, mesh: Mesh) -> None:
    root = Path(tempfile.mkdtemp(prefix="tulle-root-"))
    run(*CTR, "mount", "--rw", f"{REGISTRY}/proxy:{release.version}", str(root))
    try:
        runtime = Runtime("release", root)
        command = runtime.command(mesh.folder)
        seen = {
            "TRUST_BUNDLE_FILE": runtime.path(mesh.folder, mesh.folder / labels.BUNDLE_KEY),
            "TOKEN_FILE": runtime.path(mesh.folder, mesh.folder / "demo-archived" / "token"),
        }
        web = mesh.pod("archived", command=command, settings=seen)
        address = mesh.service("archived", 80, [web], target=8080)
        with App(web, 8080):
            assert mesh.pod("archived-client").get(address).status == 200
        assert web.proxy.metric("response_total", direction="inbound", tls="true") == 1
        web.proxy.stop()
    finally:
        run(*CTR, "unmount", "--rm", str(root))
        root.rmdir()


def test_the_api_server_takes_the_manifest(release: Release) -> None:
    """A server-side dry run of every object, with admission and validation; nothing is changed."""
    if reason := Kube.missing():
        pytest.skip(reason)
    kubectl = (str(state_folder() / "bin/kubectl"), "--kubeconfig", str(local_kubeconfig(os.environ)))
    path = release.file("install-dev.yaml")
    try_it = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--field-manager=tulle-tests")
    done = run(*kubectl, *try_it, "--output", "json", "-f", str(path))
    taken = json.loads(done.stdout)["items"]
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert len(taken) == len(documents) > 30
