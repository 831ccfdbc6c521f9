"""A Pod that its network validator keeps from starting: destination sees it, and writes what it said into an Event."""

import asyncio
from typing import Any, Final

import msgspec
import pytest

from components.destination import objects
from components.destination.cluster import Cluster
from components.destination.index import Index
from components.destination.model import pod_facts
from components.destination.ports import parse_ports
from components.destination.publisher import Publisher
from components.kube.events import Recorder
from proxy.api import labels
from tests.kit.facts import MESH, raw_pod
from tests.kit.fake_api import FakeApi, eventually

SAID: Final = "IPv4 is not redirected. Run the Ansible role tulle.mesh.cni on node node-1."


def ended(code: int, message: str = SAID, name: str = labels.VALIDATOR_CONTAINER) -> dict[str, Any]:
    """A meshed Pod one of whose init containers has ended."""
    pod = raw_pod("web-1", "10.0.0.1", meshed=True, uid="u1", phase="Pending")
    state = {"terminated": {"exitCode": code, "message": message}}
    pod["status"]["initContainerStatuses"] = [{"name": name, "state": state}]
    return pod


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (ended(95), SAID),
        (ended(95, ""), "the network validator has found no redirection"),
        (ended(0), ""),
        (ended(1), ""),
        (ended(95, name="migrate"), ""),
        (raw_pod("web-1", "10.0.0.1", meshed=True), ""),
    ],
)
def test_the_validators_own_words_count_and_nobody_elses(pod: dict[str, Any], said: str) -> None:
    assert pod_facts(msgspec.convert(pod, objects.Pod), MESH).refusal == said


def test_a_pod_of_another_mesh_is_not_told_of() -> None:
    pod = ended(95)
    pod["metadata"]["labels"][labels.CONTROL_PLANE_NAMESPACE] = "linkerd"
    assert pod_facts(msgspec.convert(pod, objects.Pod), MESH).refusal == ""


def test_the_validators_arguments_say_which_ports_are_skipped() -> None:
    raw = raw_pod("a", "10.0.0.1", meshed=True, skip="4190,4191,8443")
    raw["spec"]["initContainers"][0]["name"] = labels.VALIDATOR_CONTAINER
    assert 8443 in pod_facts(msgspec.convert(raw, objects.Pod), MESH).skipped


async def test_the_refusal_becomes_an_event_on_the_pod() -> None:
    api = FakeApi()
    index = Index("cluster.local", parse_ports("25"))
    recorder = Recorder(api.kube(), "tulle-destination")
    cluster = Cluster(api.kube(), MESH, index, Publisher(index), recorder)
    api.put("pods", ended(95), "demo")
    tasks = [asyncio.ensure_future(each.run()) for each in (cluster, recorder)]
    try:
        (event,) = await eventually(
            "an event", lambda: [body for (plural, _, _), body in api.objects.items() if plural == "events"]
        )
    finally:
        for task in tasks:
            task.cancel()
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "NotRedirected", SAID)
    about = event["involvedObject"]
    assert (about["kind"], about["namespace"], about["name"], about["uid"]) == ("Pod", "demo", "web-1", "u1")
