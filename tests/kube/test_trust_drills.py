"""Trust that changes under load on the real cluster: an issuer in its last third, which the keeper renews, the
webhook's certificate, which the injector does, an anchor rotated in three steps and one replaced at once. Each step is
an ordinary `up`, and no pod is restarted.

Ends with the trust of the stack's own settings, and an anchor that is new.
"""

import base64
import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from components.cli import exposition
from components.cli.check import ISSUER_EXPIRY, run_checks
from components.deploy.refs import Ref
from components.injector.certs import SECRET
from components.injector.webhook_ca import LEAF_LIFE, Material, renew_leaf
from components.trust import authority, inspection, objects, rotation
from components.trust.rotation import Trust
from proxy.api import labels
from tests.kit.cluster import MESH, Kube
from tests.kit.stack import Stack
from tests.kit.waiting import until
from tests.kube.test_outages import NEW, RATE, Load

Json = dict[str, Any]
AGE = 0.7
"""Of its life, that the issuer of the drill has behind it: it is in its last third, and the keeper has to act."""


REPORT_SECONDS = 120
"""Until proxies have reported a bundle: it takes a kubelet's round to reach them, two where the ConfigMap has to be
copied first, and they spread their requests over ten seconds."""
REISSUE_SECONDS = 300
"""Until proxies have certificates of another issuer: those that had the bundle before identity had the issuer ask again
after at most a minute and a half, and after three more."""
RECOVERY_SECONDS = 300
"""The same for an anchor that is replaced at once."""


class Drilled(Stack):
    """The mesh as `make up` made it, and what of its trust is live."""

    def trust(self) -> Trust:
        return inspection.live_trust(self.cluster, MESH)[0]

    def waits(self, wanted: Trust) -> str | None:
        """What the guard of the next step says."""
        live, bundle = inspection.live_trust(self.cluster, MESH)
        pods, told = inspection.running_pods(self.cluster, MESH), inspection.reported(self.cluster, MESH)
        return rotation.refusal(live, wanted, bundle, pods, told)

    def is_current(self) -> bool:
        """Whether every running meshed pod has reported the bundle as it is now, and a certificate that leads to it."""
        live, bundle = inspection.live_trust(self.cluster, MESH)
        told = inspection.reported(self.cluster, MESH)
        signer = live.signer[: len(next(iter(told.values())).anchor)] if told else ""
        pods = inspection.running_pods(self.cluster, MESH)
        return all(pod.uid in told and (told[pod.uid].bundle, told[pod.uid].anchor) == (bundle, signer) for pod in pods)


def anchors(trusted: list[int], signer: int) -> Json:
    return {"trust.anchors": trusted, "trust.signer": signer}


@pytest.fixture
def stack(kube: Kube) -> Iterator[Drilled]:
    with Drilled() as made:
        assert made.is_quiet(), "what is deployed is not what this code declares"
        yield made
        # Whatever became of the test, the mesh is left with the trust of its own settings.
        if not made.is_quiet():
            made.up({"trust.force": True})


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
    kube: Kube, stack: Drilled, load: Load
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


@pytest.mark.timeout(1500)
def test_an_anchor_is_rotated_in_three_steps_and_replaced_in_one(kube: Kube, stack: Drilled, load: Load) -> None:
    (old,) = stack.trust().anchors
    before, mark, begun = lives(kube, MESH, labels.TRUST_NAMESPACE, load.namespace), load.mark(), time.monotonic()
    stack.up(anchors([1, 2], 1))
    both = stack.trust().anchors
    (new,) = both - {old}
    # Nobody can have reported yet, and a missing report means stop.
    assert "have not reported that they trust both anchors" in stack.refused(anchors([1, 2], 2))
    until("all trust both", lambda: stack.waits(Trust(both, new)) is None, REPORT_SECONDS, 1)
    stack.up(anchors([1, 2], 2))
    assert stack.trust() == Trust(both, new)
    assert "have not reported a certificate of an anchor that stays" in stack.refused(anchors([2], 2))
    switched = time.monotonic()
    until("all have new certificates", lambda: stack.waits(Trust(frozenset({new}), new)) is None, REISSUE_SECONDS, 1)
    print(f"all proxies had certificates of the new anchor after {time.monotonic() - switched:.0f} s")
    stack.up(anchors([2], 2))
    assert stack.trust() == Trust(frozenset({new}), new)
    until("all trust the new one alone", stack.is_current, REPORT_SECONDS, 1)
    load.assert_clean(mark, time.monotonic() - begun)
    assert before == lives(kube, MESH, labels.TRUST_NAMESPACE, load.namespace)
    assert not [each.name for each in run_checks(kube, MESH) if each.status == "error"]
    # And at once: the stack's own settings again, whatever anybody has reported.
    mark, begun = load.mark(), time.monotonic()
    stack.up({"trust.force": True})
    until("all trust the third", stack.is_current, RECOVERY_SECONDS, 1)
    took = time.monotonic() - begun
    time.sleep(5)
    seen = load.seen_since(mark)
    print(f"replaced at once: {seen['failed']} of {seen['sent']} requests failed within {took:.0f} s: {seen['causes']}")
    assert all(cause.startswith(("status 502", "status 503", "status 504")) for cause in seen["causes"]), seen
    mark, begun = load.mark(), time.monotonic()
    load.client.wait_for(ok=mark["ok"] + 10 * (RATE + NEW))
    load.assert_clean(mark, time.monotonic() - begun)
    assert before == lives(kube, MESH, labels.TRUST_NAMESPACE, load.namespace)
    until("`tulle check` is content", lambda: not [f for f in run_checks(kube, MESH) if f.status == "error"], 60, 2)


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
