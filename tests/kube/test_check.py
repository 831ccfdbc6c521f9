"""`tulle check` on a real cluster: what it says of a pod whose redirection is gone, though every status is good."""

import subprocess

from components.cli.check import run_checks
from components.cli.judge import Finding
from tests.kit.apps import Apps
from tests.kit.cluster import MESH, Kube, processes


def interception(kube: Kube) -> Finding:
    return next(finding for finding in run_checks(kube, MESH) if finding.name == "pods-intercepted")


def test_a_pod_that_has_lost_its_redirection_is_named(kube: Kube, image: str, meshed: str) -> None:
    (pod,) = Apps(kube, image).serve("api", meshed)
    name = pod["metadata"]["name"]
    before = interception(kube)
    assert (before.status, "not tried" in before.message) == ("ok", False), before
    proxy, *_ = processes({"TULLE_PROXY_POD_NAME": name, "TULLE_PROXY_POD_NAMESPACE": meshed})
    flush = ["iptables-nft", "-t", "nat", "-F", "PREROUTING"]
    subprocess.run(["nsenter", f"--net=/proc/{proxy}/ns/net", *flush], check=True, timeout=30, capture_output=True)
    after = interception(kube)
    assert after.status == "error"
    assert f"not redirected: {meshed}/{name}" in after.message
