"""The bootstrap makes what is absent and nothing else, within the rights that its roles give."""

import datetime
from typing import Any

import pytest

from components.keeper.bootstrap import Bootstrap
from components.serving import StartupError
from components.trust import authority, objects
from proxy.api import labels
from tests.kit.fake_api import FakeApi

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
MESH, TRUST = "tulle", "tulle-trust"


async def run(api: FakeApi, further: str = "", now: datetime.datetime = NOW) -> None:
    await Bootstrap(api.kube(), MESH, TRUST, "cluster.local").run(further, now)


def anchor_of(api: FakeApi) -> authority.KeyPair:
    found = api.get("secrets", labels.ANCHOR_SECRET, TRUST)
    assert found is not None
    return objects.pair_of(found)


async def test_all_three_are_made_and_fit() -> None:
    api = FakeApi()
    await run(api)
    anchor = anchor_of(api)
    issuer = objects.pair_of(api.get("secrets", labels.ISSUER_SECRET, MESH) or {})
    authority.check_issuer(issuer, anchor.certificate, NOW)
    bundle = api.get("configmaps", labels.BUNDLE_CONFIG_MAP, MESH)
    assert bundle is not None
    assert bundle["data"] == {labels.BUNDLE_KEY: anchor.certificate}
    assert len(api.objects) == 3


async def test_a_second_run_writes_nothing() -> None:
    api = FakeApi()
    await run(api)
    before = dict(api.objects)
    api.requests.clear()
    await run(api)
    assert api.objects == before
    # The bundle is created last, and a create of what exists is refused: that is the one write that is tried.
    assert {method for method, path in api.requests if method != "GET"} <= {"POST"}


async def test_what_is_there_is_kept_and_what_is_missing_is_made_under_it() -> None:
    api = FakeApi()
    anchor = authority.make_anchor(MESH, "cluster.local", NOW)
    api.put("secrets", objects.anchor_secret(TRUST, labels.ANCHOR_SECRET, anchor), TRUST)
    await run(api)
    assert anchor_of(api) == anchor
    issuer = objects.pair_of(api.get("secrets", labels.ISSUER_SECRET, MESH) or {})
    authority.check_issuer(issuer, anchor.certificate, NOW)


async def test_further_anchors_are_published_too() -> None:
    api, other = FakeApi(), authority.make_anchor("other", "example.org", NOW)
    await run(api, other.certificate)
    bundle = (api.get("configmaps", labels.BUNDLE_CONFIG_MAP, MESH) or {})["data"][labels.BUNDLE_KEY]
    assert bundle == anchor_of(api).certificate + other.certificate


async def test_two_at_once_end_with_the_material_of_one() -> None:
    import asyncio

    api = FakeApi()
    await asyncio.gather(*(run(api) for _ in range(4)))
    issuer = objects.pair_of(api.get("secrets", labels.ISSUER_SECRET, MESH) or {})
    authority.check_issuer(issuer, anchor_of(api).certificate, NOW)
    assert len(api.objects) == 3


async def test_a_foreign_secret_and_an_expired_anchor_are_refused_by_name() -> None:
    api = FakeApi()
    foreign: dict[str, Any] = {"metadata": {"name": labels.ANCHOR_SECRET}, "data": {}}
    api.put("secrets", foreign, TRUST)
    with pytest.raises(StartupError, match=f"{TRUST}/{labels.ANCHOR_SECRET} exists, but is none that Tulle made"):
        await run(api)
    api = FakeApi()
    await run(api)
    with pytest.raises(StartupError, match="the anchor expired at"):
        await run(api, now=NOW + datetime.timedelta(days=4000))


async def test_its_roles_allow_what_it_asks_and_the_anchor_nothing_else() -> None:
    from components.cli.render import rendered
    from tests.iac.kit import ROOT

    manifests = rendered("local", (), ROOT)[0]
    roles = {
        each["metadata"]["namespace"]: each["rules"]
        for each in manifests
        if each["kind"] == "Role" and each["metadata"]["name"] == "trust-bootstrap"
    }
    assert set(roles) == {MESH, TRUST}
    api = FakeApi()
    await run(api)
    await run(api)
    for method, path in api.requests:
        _, _, _, _, namespace, resource, *name = path.split("/")
        verb = {"GET": "get", "POST": "create"}[method]
        assert any(
            resource in rule["resources"]
            and verb in rule["verbs"]
            and (not rule.get("resourceNames") or name[0] in rule["resourceNames"])
            for rule in roles[namespace]
        ), (method, path)
    readers = [rule for rule in roles[TRUST] if set(rule["verbs"]) - {"create"}]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in readers] == [([labels.ANCHOR_SECRET], ["get"])]
