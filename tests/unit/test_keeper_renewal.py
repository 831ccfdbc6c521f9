"""The keeper at work: it renews what is due, reads the anchor only then, writes nothing else, and gives way."""

import asyncio
import datetime
import json
from typing import Any

import pytest
import structlog

from components.identity.authority import load_issuer
from components.keeper import renewal as module
from components.keeper.decide import State
from components.keeper.renewal import Renewal
from components.kube.client import KubeError
from components.trust import authority, objects
from components.trust.authority import AuthorityError, KeyPair
from proxy.api import labels
from tests.kit.fake_api import FakeApi, eventually

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
MESH, TRUST = "tulle", "tulle-trust"
LIFE = authority.ISSUER_LIFETIME
LATE = NOW + LIFE * 0.8
ANCHOR_PATH = f"/api/v1/namespaces/{TRUST}/secrets/{labels.ANCHOR_SECRET}"


class Mesh:
    """The objects of one mesh's trust, and the keeper in front of them."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.anchor = authority.make_anchor(MESH, "cluster.local", NOW)
        self.issuer = authority.make_issuer(self.anchor, MESH, "cluster.local", NOW)
        self.api.put("secrets", objects.anchor_secret(TRUST, labels.ANCHOR_SECRET, self.anchor), TRUST)
        self.api.put("secrets", objects.issuer_secret(MESH, self.issuer, self.anchor.certificate), MESH)
        self.api.put("configmaps", objects.bundle_map(MESH, self.anchor.certificate), MESH)
        self.keeper = Renewal(self.api.kube(), MESH, TRUST, "cluster.local", LIFE)

    @property
    def now_issuing(self) -> KeyPair:
        found = self.api.get("secrets", labels.ISSUER_SECRET, MESH)
        assert found is not None
        return objects.pair_of(found)

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [each for each in self.api.requests if each[0] != "GET"]


async def test_a_good_issuer_is_looked_at_and_the_anchor_is_not_read() -> None:
    mesh = Mesh()
    verdict = await mesh.keeper.look(NOW)
    assert verdict.state is State.GOOD
    assert mesh.writes == []
    assert ("GET", ANCHOR_PATH) not in mesh.api.requests


@pytest.mark.parametrize("moment", [LATE, NOW + LIFE + datetime.timedelta(days=1)])
async def test_a_due_or_expired_issuer_is_renewed_for_identity_to_take(moment: datetime.datetime) -> None:
    mesh = Mesh()
    with structlog.testing.capture_logs() as logs:
        await mesh.keeper.look(moment)
    made = mesh.now_issuing
    assert made.key != mesh.issuer.key
    # Identity's own check, with the three files as it mounts them.
    taken = load_issuer(made.certificate.encode(), made.key.encode(), mesh.anchor.certificate.encode(), moment)
    assert abs(taken.not_after - (moment + LIFE)) < datetime.timedelta(seconds=2)
    assert mesh.writes == [("PUT", f"/api/v1/namespaces/{MESH}/secrets/{labels.ISSUER_SECRET}")]
    said = json.dumps(logs, default=str)
    assert "issuer_renewed" in said
    for key in (made.key, mesh.anchor.key, mesh.issuer.key):
        assert key.splitlines()[1] not in said
    # The next look finds nothing to do.
    assert (await mesh.keeper.look(moment)).state is State.GOOD
    assert len(mesh.writes) == 1


async def test_another_writer_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh()
    theirs = authority.make_issuer(mesh.anchor, MESH, "cluster.local", LATE)
    stale = dict(mesh.api.get("secrets", labels.ISSUER_SECRET, MESH) or {})

    async def read_earlier(*_: object) -> Any:
        return stale

    monkeypatch.setattr(mesh.keeper._kube, "find", read_earlier)  # the moment between its read and its write
    mesh.api.put("secrets", objects.issuer_secret(MESH, theirs, mesh.anchor.certificate), MESH)
    with pytest.raises(KubeError, match="modified"):
        await mesh.keeper.look(LATE)
    assert mesh.now_issuing == theirs


async def test_an_anchor_that_is_being_changed_is_left_to_the_deployment() -> None:
    mesh = Mesh()
    following = authority.make_anchor(MESH, "cluster.local", NOW)
    both = mesh.anchor.certificate + following.certificate
    mesh.api.put("configmaps", objects.bundle_map(MESH, both), MESH)
    mesh.api.put("secrets", objects.anchor_secret(TRUST, labels.ANCHOR_SECRET, following), TRUST)
    verdict = await mesh.keeper.look(LATE)
    assert verdict.state is State.DUE
    assert mesh.writes == []
    assert mesh.now_issuing == mesh.issuer


async def test_a_foreign_anchor_secret_is_refused_by_name() -> None:
    mesh = Mesh()
    mesh.api.put("secrets", {"metadata": {"name": labels.ANCHOR_SECRET}, "data": {}}, TRUST)
    with pytest.raises(AuthorityError, match=f"{TRUST}/{labels.ANCHOR_SECRET} exists, but is none that Tulle made"):
        await mesh.keeper.look(LATE)


async def test_an_absent_issuer_is_not_made() -> None:
    mesh = Mesh()
    mesh.api.remove("secrets", labels.ISSUER_SECRET, MESH)
    assert (await mesh.keeper.look(LATE)).state is State.ABSENT
    assert mesh.writes == []


async def test_it_goes_on_after_failures_and_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    mesh = Mesh()
    assert mesh.keeper.waiting_for() == "a first look at the issuer"
    mesh.api.fail = [500, 403]
    task = asyncio.create_task(mesh.keeper.run())
    try:
        await eventually("a look", lambda: mesh.keeper.waiting_for() is None)
    finally:
        task.cancel()
    monkeypatch.setattr(module, "STALE_SECONDS", -1.0)
    assert "an answer of the API server" in (mesh.keeper.waiting_for() or "")


async def test_its_roles_allow_what_it_does_and_it_alone_may_read_the_anchor() -> None:
    from components.cli.render import rendered
    from tests.iac.kit import ROOT

    manifests = rendered("local", (), ROOT)[0]

    def rules(name: str) -> dict[str, list[dict[str, Any]]]:
        found = [each for each in manifests if each["kind"] == "Role" and each["metadata"]["name"] == name]
        return {each["metadata"]["namespace"]: each["rules"] for each in found}

    mesh = Mesh()
    await mesh.keeper.look(LATE)
    for method, path in mesh.api.requests:
        _, _, _, _, namespace, resource, name = path.split("/")
        assert any(
            resource in rule["resources"]
            and {"GET": "get", "PUT": "update"}[method] in rule["verbs"]
            and name in rule["resourceNames"]
            for rule in rules("trust")[namespace]
        ), (method, path)
    assert [(rule["resourceNames"], rule["verbs"]) for rule in rules("trust")[TRUST]] == [
        ([labels.ANCHOR_SECRET], ["get"])
    ]
    bound = {
        subject["name"]
        for each in manifests
        if each["kind"] == "RoleBinding" and each["metadata"]["namespace"] == TRUST
        for subject in each["subjects"]
    }
    assert bound == {"trust", "trust-bootstrap"}
