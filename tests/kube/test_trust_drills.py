"""Trust that renews itself under load on the real cluster: an issuer in its last third, which the keeper renews, and
the webhook's certificate, which the injector does. No pod is restarted.
"""

import base64
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from components.cli import exposition
from components.cli.check import ISSUER_EXPIRY, run_checks
from components.deploy.cluster import Cluster
from components.deploy.ledger import Ledger
from components.deploy.refs import Ref
from components.forms import IMAGES
from components.injector.certs import SECRET
from components.injector.webhook_ca import LEAF_LIFE, Material, renew_leaf
from components.trust import authority, objects
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.tiny import target as local
from tests.kit.cluster import MESH, Kube
from tests.kit.waiting import until
from tests.kube.test_outages import Load

Json = dict[str, Any]
AGE = 0.7
"""Of its life, that the issuer of the drill has behind it: it is in its last third, and the keeper has to act."""


class Stack:
    """The mesh as `make up` made it."""

    def __init__(self) -> None:
        self.cluster = Cluster(local())
        images = {name: Ledger(self.cluster, "tulle", "local").outputs["images"][name] for name in IMAGES}
        self.images = json.dumps(images)

    def is_quiet(self) -> bool:
        """Whether the stack as its file has it would change nothing."""
        command = [sys.executable, "-m", "components.cli.main", "preview", "--stack", "local", "-o", "json"]
        command += ["-c", f"images.refs={self.images}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return {step["action"] for step in json.loads(done.stdout)["steps"]} == {"same"}


@pytest.fixture
def stack(kube: Kube) -> Iterator[Stack]:
    made = Stack()
    assert made.is_quiet(), "what is deployed is not what this code declares"
    yield made
    made.cluster.close()


@pytest.fixture
def load(kube: Kube, image: str, meshed: str) -> Load:
    return Load(kube, image, meshed)


def lives(kube: Kube, *namespaces: str) -> set[tuple[str, int]]:
    """Pods, and how often any of their containers has been started again."""
    found = set()
    for namespace in namespaces:
        for pod in kube.pods(namespace):
            status = pod.get("status") or {}
            every = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
            found.add((str(pod["metadata"]["uid"]), sum(int(each["restartCount"]) for each in every)))
    return found


def issuer(kube: Kube) -> str:
    return objects.text(kube.get(Ref("v1", "Secret", MESH, labels.ISSUER_SECRET)), "tls.crt")


def in_use(kube: Kube) -> float:
    """The end of the issuer that identity signs with now."""
    pod = kube.list("v1", "Pod", MESH, f"{labels.COMPONENT}=identity")[0]["metadata"]["name"]
    text = kube.pod_get(MESH, pod, labels.CONTROLLER_ADMIN_PORT, "/metrics").decode()
    return exposition.value(text, ISSUER_EXPIRY) or 0.0


@pytest.mark.timeout(600)
def test_the_keeper_renews_an_issuer_under_load_and_the_next_up_shows_no_change(
    kube: Kube, stack: Stack, load: Load
) -> None:
    anchor = objects.pair_of(kube.get(Ref("v1", "Secret", labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET)) or {})
    # No older than the anchor, and most of its life is over.
    then = authority.load_certificate(anchor.certificate, "anchor").not_valid_before_utc
    life = (datetime.datetime.now(datetime.UTC) - then) / AGE
    aged = authority.make_issuer(anchor, MESH, "cluster.local", then, life)
    before, mark, begun = lives(kube, MESH, labels.TRUST_NAMESPACE, load.namespace), load.mark(), time.monotonic()
    texts = {"tls.crt": aged.certificate, "tls.key": aged.key}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    kube.merge("v1", "Secret", MESH, labels.ISSUER_SECRET, {"data": data})
    until("the keeper has renewed it", lambda: issuer(kube) != aged.certificate, 90)
    made = authority.load_certificate(issuer(kube), "issuer")
    assert made.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + authority.ISSUER_LIFETIME * 0.9
    end = made.not_valid_after_utc.timestamp()
    until("identity signs with it", lambda: in_use(kube) == end, 60)
    assert stack.is_quiet()
    # A certificate of the new issuer, and connections that stand on it.
    kube.scale(load.namespace, "api", 4)
    new = {pod["metadata"]["name"] for pod in kube.ready_pods(load.namespace, "api", 4)} - load.answered_by()
    until("requests at the new pod", lambda: new <= load.answered_by(), 30)
    load.assert_clean(mark, time.monotonic() - begun)
    assert before <= lives(kube, MESH, labels.TRUST_NAMESPACE, load.namespace)


@pytest.mark.timeout(200)
def test_the_injector_renews_its_certificate_and_injection_goes_on(kube: Kube) -> None:
    ref = Ref("v1", "Secret", MESH, SECRET)
    held = Material.from_data({k: base64.b64decode(v) for k, v in (kube.get(ref) or {})["data"].items()})
    names = tuple(x509.load_pem_x509_certificate(held.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))  # fmt: skip
    aged = renew_leaf(held, names, datetime.datetime.now(datetime.UTC) - LEAF_LIFE * AGE)
    data = {key: base64.b64encode(value).decode() for key, value in aged.as_data().items()}
    kube.merge("v1", "Secret", MESH, SECRET, {"data": data})

    def renewed() -> bytes | None:
        found = base64.b64decode((kube.get(ref) or {})["data"]["tls.crt"])
        return found if found != aged.certificate else None

    made = x509.load_pem_x509_certificate(until("the injector has renewed it", renewed, 90))
    assert made.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + LEAF_LIFE * 0.9
    found = {each.name: each for each in run_checks(kube, MESH)}
    assert found["webhook-serves"].status == "ok", found["webhook-serves"]

    def shown() -> bool:
        checked = next(each for each in run_checks(kube, MESH) if each.name == "webhook-certificate")
        return checked.status == "ok" and "renewed by the injector" in checked.message

    until("`tulle check` shows its life", shown, 30, 2)
