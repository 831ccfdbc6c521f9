"""What the webhook does with pods on a real cluster: native and classic sidecars, refusals and their events, and the
same pod by hand.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.deploy.errors import ClusterError
from components.deploy.refs import Ref
from proxy.api import labels
from tests.kit import objects
from tests.kit.apps import Apps
from tests.kit.cluster import MESH, Kube, processes
from tests.kit.waiting import until, while_true

CLASSIC = {"config.linkerd.io/proxy-enable-native-sidecar": "false"}


def containers(pod: dict[str, Any], field: str) -> list[str]:
    return [container["name"] for container in pod["spec"].get(field) or []]


def test_the_native_sidecar_is_the_default(kube: Kube, image: str, meshed: str) -> None:
    (pod,) = Apps(kube, image).serve("api", meshed)
    assert containers(pod, "initContainers") == ["linkerd-init", "linkerd-proxy"]
    assert pod["spec"]["initContainers"][1]["restartPolicy"] == "Always"
    assert containers(pod, "containers") == ["app"]


def test_a_classic_sidecar_holds_the_app_until_the_proxy_is_ready(kube: Kube, image: str, meshed: str) -> None:
    """With nobody to certify it the proxy cannot get ready; the application waits as long, and starts right after."""
    apps = Apps(kube, image)
    identity = kube.get(Ref("apps/v1", "Deployment", MESH, "identity"))
    assert identity is not None
    replicas = identity["spec"]["replicas"]

    def started() -> tuple[bool, bool]:
        """Whether proxy and application run. The kubelet says nothing of a pod while it waits for one of its hooks, so
        their processes are looked for."""
        pods = kube.pods(meshed, "api")
        if not pods:
            return False, False
        name = pods[0]["metadata"]["name"]
        proxy = processes({"HOSTNAME": name, "TULLE_PROXY_POD_NAME": name})
        return bool(proxy), bool(set(processes({"HOSTNAME": name})) - set(proxy))

    try:
        kube.scale(MESH, "identity", 0)
        until("no identity", lambda: not kube.list("v1", "Pod", MESH, f"{labels.COMPONENT}=identity"), 60)
        apps.serve("api", meshed, annotations=CLASSIC, wait=False)
        until("a proxy, and no init container any more", lambda: started() == (True, False), 60)
        while_true("the application waits", lambda: started() == (True, False), 6)
    finally:
        kube.scale(MESH, "identity", replicas)
        kube.rolled_out(MESH, "identity")
    (pod,) = kube.ready_pods(meshed, "api")
    assert containers(pod, "initContainers") == ["linkerd-init"]
    assert containers(pod, "containers") == ["linkerd-proxy", "app"]
    client = apps.client(meshed, f"http://api.{meshed}:8080/", rate=20)
    assert client.wait_for(ok=100)["failed"] == 0


def refused(kube: Kube, manifest: dict[str, Any]) -> str:
    with pytest.raises(ClusterError) as caught:
        kube.put(manifest)
    return str(caught.value)


def event(kube: Kube, namespace: str, *words: str) -> dict[str, Any]:
    """The event whose reason or message has all of these words."""

    def look() -> dict[str, Any] | None:
        for found in kube.events(namespace):
            text = f"{found['reason']} {found['message']}"
            if all(word in text for word in words):
                return found
        return None

    return until(f"an event with {words}", look, 30)


def test_a_host_network_pod_runs_unmeshed_and_its_owner_is_told(kube: Kube, image: str, meshed: str) -> None:
    container = objects.idle_container("app", image)
    kube.put(objects.deployment("host", meshed, [container], hostNetwork=True))
    (pod,) = kube.ready_pods(meshed, "host")
    assert "linkerd-proxy" not in containers(pod, "initContainers") + containers(pod, "containers")
    told = event(kube, meshed, "host_network_enabled", "hostNetwork")
    assert told["involvedObject"]["kind"] == "Deployment"


def test_an_application_with_the_proxys_uid_is_refused(kube: Kube, image: str, meshed: str) -> None:
    container = objects.idle_container("app", image)
    container["securityContext"]["runAsUser"] = labels.PROXY_UID
    error = refused(kube, objects.pod("same-uid", meshed, [container]))
    assert "2102" in error
    assert "app" in error
    kube.put(objects.deployment("same-uid", meshed, [container]))
    assert "2102" in event(kube, meshed, "proxy_uid_in_use")["message"]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("config.linkerd.io/proxy-log-level", "loud"),
        ("config.linkerd.io/opaque-ports", "http"),
        ("config.linkerd.io/default-inbound-policy", "everyone"),
        ("linkerd.io/inject", "maybe"),
    ],
)
def test_a_bad_annotation_value_is_one_clear_error(
    kube: Kube, image: str, meshed: str, annotation: str, value: str
) -> None:
    container = objects.idle_container("app", image)
    error = refused(kube, objects.pod("bad", meshed, [container], {annotation: value}))
    assert annotation in error, "names the field"
    assert value in error, "names the value"
    assert "allowed" in error, "names the way out"
    assert kube.get(Ref("v1", "Pod", meshed, "bad")) is None


def test_udp_ports_are_said_to_be_outside_the_mesh(kube: Kube, image: str, meshed: str) -> None:
    container = objects.idle_container("app", image, ports=[{"containerPort": 5353, "protocol": "UDP"}])
    kube.put(objects.deployment("udp", meshed, [container]))
    kube.ready_pods(meshed, "udp")
    assert "UDP" in event(kube, meshed, "udp_ports")["message"]


def test_a_pod_with_another_meshs_proxy_is_left_alone(kube: Kube, image: str, meshed: str) -> None:
    theirs = objects.idle_container("linkerd-proxy", image)
    kube.put(objects.pod("theirs", meshed, [theirs, objects.idle_container("app", image)]))
    (pod,) = kube.ready_pods(meshed, "theirs")
    assert containers(pod, "initContainers") == []
    event(kube, meshed, "sidecar_already_exists")


def test_a_disabled_pod_stays_outside_without_noise(kube: Kube, image: str, meshed: str) -> None:
    container = objects.idle_container("app", image)
    kube.put(objects.pod("out", meshed, [container], {labels.INJECT: "disabled"}))
    (pod,) = kube.ready_pods(meshed, "out")
    assert "linkerd-proxy" not in containers(pod, "initContainers")
    assert not [found for found in kube.events(meshed) if found["reason"].startswith("Injection")]


def test_injection_by_hand_gives_the_webhooks_pod(kube: Kube, image: str, meshed: str, plain: str) -> None:
    container = objects.app_container("api", image, {})
    by_webhook = kube.create(objects.pod("same", meshed, [container]), dry_run=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pod.yaml")
        file.write_text(yaml.safe_dump(objects.pod("same", plain, [container])))
        command = [sys.executable, "-m", "components.cli.main", "inject", "--manual", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    by_hand = kube.create(yaml.safe_load(done.stdout), dry_run=True)

    def comparable(pod: dict[str, Any]) -> str:
        found = json.loads(json.dumps(pod).replace(meshed, "NAMESPACE").replace(plain, "NAMESPACE"))
        spec = found["spec"]
        # The API server's own additions come before the webhook and after the hand: only their place in lists differs,
        # and the volume of the service account's token has a random name.
        token = next((v["name"] for v in spec["volumes"] if v["name"].startswith("kube-api-access-")), "none")
        spec["volumes"].sort(key=lambda volume: str(volume["name"]))
        for container in [*spec["initContainers"], *spec["containers"]]:
            container.get("volumeMounts", []).sort(key=lambda mount: str(mount["mountPath"]))
        kept = {key: found["metadata"].get(key) for key in ("labels", "annotations")}
        return json.dumps([kept, spec], sort_keys=True, indent=1).replace(token, "kube-api-access")

    assert comparable(by_hand) == comparable(by_webhook)


def test_a_pod_injected_by_hand_runs_in_the_mesh(kube: Kube, image: str, plain: str) -> None:
    pod = objects.pod("hand", plain, [objects.app_container("api", image, {})])
    command = [sys.executable, "-m", "components.cli.main", "inject", "--manual", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(pod), capture_output=True, text=True, timeout=60)
    kube.put(yaml.safe_load(done.stdout))
    (found,) = kube.ready_pods(plain, "hand")
    assert found["metadata"]["labels"][labels.CONTROL_PLANE_NAMESPACE] == "tulle"
