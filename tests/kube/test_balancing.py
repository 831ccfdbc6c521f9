"""EWMA at work: a slow endpoint gets few requests, and gets its share back when it is quick again."""

from tests.kit.apps import Apps, since
from tests.kit.cluster import Kube
from tests.kit.waiting import until


def test_a_slowed_endpoint_gets_under_5_percent_within_10_seconds(kube: Kube, image: str, meshed: str) -> None:
    apps = Apps(kube, image)
    pods = [pod["metadata"]["name"] for pod in apps.serve("api", meshed, replicas=3)]
    client = apps.client(meshed, f"http://api.{meshed}:8080/", rate=100)
    client.wait_for(ok=600)
    answers = client.counts()["answers"]
    assert set(answers) == set(pods), "all three are used while all are quick"

    slow = pods[0]
    kube.pod_get(meshed, slow, 8080, "/delay?ms=200", method="POST")

    def share() -> float:
        before = client.counts()
        after = client.wait_for(ok=before["ok"] + 300, seconds=30)
        seen = since(before, after)
        assert seen["failed"] == 0, seen
        return float(seen["answers"].get(slow, 0) / seen["ok"])

    # Ten seconds from the change: 1,000 requests at this rate.
    client.wait_for(ok=client.counts()["ok"] + 1000, seconds=30)
    assert share() < 0.05

    kube.pod_get(meshed, slow, 8080, "/delay?ms=0", method="POST")
    until("the endpoint is used again once it is quick", lambda: share() > 0.1, 60, 0)
