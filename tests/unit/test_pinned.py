"""What the oldest supported release says to others, from a record of it: this tree's API still says everything in the
same places, reads its messages, and its proxy starts with what the old injector gives it.

The record is held to the release itself where its history is at hand; `tests/mesh/test_skew.py` runs the two together.
"""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from proxy import settings
from proxy.api import destination_pb2, identity_pb2
from proxy.control import messages
from proxy.redirect.arguments import parser, redirection_from
from tests.kit import pinned
from tests.kit.pinned_record import record

RECORD: Final[dict[str, Any]] = json.loads(pinned.RECORD.read_text())
OLD: Final = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(RECORD["schema"]))
MODULES: Final = {"tulle.destination.v1": destination_pb2, "tulle.identity.v1": identity_pb2}
NEWER: Final = bytes.fromhex("c83e01") + bytes.fromhex("d23e03616263")
"""Fields 1001 (a number) and 1002 (a text): what a newer release may add to any message."""


def present(name: str) -> Any:
    """This tree's class of a message."""
    package, _, last = name.partition("/")[0].rpartition(".")
    return getattr(MODULES[package], last)


def kinds() -> list[tuple[str, descriptor_pb2.DescriptorProto]]:
    return [(f"{file.package}.{each.name}", each) for file in OLD.file for each in file.message_type]


@pytest.mark.parametrize(("name", "old"), kinds(), ids=[name for name, _ in kinds()])
def test_no_field_moved_went_or_changed_its_type(name: str, old: descriptor_pb2.DescriptorProto) -> None:
    new = descriptor_pb2.DescriptorProto()
    present(name).DESCRIPTOR.CopyToProto(new)
    fields = {field.number: field for field in new.field}
    for field in old.field:
        now = fields.get(field.number)
        assert now is not None, f"{name}.{field.name} ({field.number}) is gone"
        kept = ("name", "type", "type_name", "label")
        assert [getattr(now, each) for each in kept] == [getattr(field, each) for each in kept], f"{name}.{field.name}"
        assert now.HasField("oneof_index") == field.HasField("oneof_index"), f"{name}.{field.name}"


def test_no_word_of_an_enum_and_no_method_went() -> None:
    for file in OLD.file:
        module = MODULES[file.package].DESCRIPTOR
        for enum in file.enum_type:
            words = {value.name: value.number for value in module.enum_types_by_name[enum.name].values}
            assert {value.name: value.number for value in enum.value}.items() <= words.items()
        for service in file.service:
            new = descriptor_pb2.ServiceDescriptorProto()
            module.services_by_name[service.name].CopyToProto(new)
            methods = {method.name: method for method in new.method}
            for method in service.method:
                assert methods[method.name] == method, f"{service.name}.{method.name}"


@pytest.mark.parametrize("name", list(RECORD["messages"]))
def test_an_old_message_is_read_and_one_with_fields_of_the_future_too(name: str) -> None:
    data = bytes.fromhex(RECORD["messages"][name]["bytes"])
    for given in (data, data + NEWER, NEWER + data):
        found = present(name).FromString(given)
        assert json_format.MessageToDict(found, preserving_proto_field_name=True) == RECORD["messages"][name]["value"]


def test_the_proxys_own_reader_takes_old_updates_and_leaves_out_what_it_does_not_know() -> None:
    snapshot = bytes.fromhex(RECORD["messages"]["tulle.destination.v1.Update/snapshot"]["bytes"])
    delta = bytes.fromhex(RECORD["messages"]["tulle.destination.v1.Update/delta"]["bytes"])
    found, changed = messages.update(snapshot), messages.update(delta)
    assert isinstance(found, messages.Snapshot)
    assert isinstance(changed, messages.Delta)
    assert found.target.kind == messages.SERVICE
    assert [each.address for each in (*found.endpoints, *changed.upsert)] == ["10.0.0.7:8080"] * 2
    assert found.target.retries is not None
    assert found.target.balancing.failure_accrual is not None
    assert messages.update(snapshot + NEWER) == found
    inner = destination_pb2.Update.FromString(snapshot)
    inner.snapshot.MergeFromString(NEWER)
    inner.snapshot.endpoints[0].MergeFromString(NEWER)
    assert messages.update(inner.SerializeToString()) == found
    answer = bytes.fromhex(RECORD["messages"]["tulle.identity.v1.CertifyResponse"]["bytes"])
    assert messages.certificate(answer + NEWER) == messages.certificate(answer)


def test_an_old_control_plane_reads_what_this_trees_proxy_asks() -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in OLD.file:
        pool.Add(file)  # type: ignore[no-untyped-call]

    def old(name: str, data: bytes) -> dict[str, Any]:
        kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))  # type: ignore[no-untyped-call]
        found: dict[str, Any] = json_format.MessageToDict(kind.FromString(data), preserving_proto_field_name=True)
        return found

    asked = messages.watch_request("demo", "web-1", "node-1", "10.96.0.1:80")
    workload = {"namespace": "demo", "pod": "web-1", "node": "node-1"}
    assert old("tulle.destination.v1.WatchRequest", asked) == {"workload": workload, "address": "10.96.0.1:80"}
    certify = old("tulle.identity.v1.CertifyRequest", messages.certify_request("web", b"t", b"r", "sha", "2"))
    assert certify["identity"] == "web"
    assert base64.b64decode(certify["token"]) == b"t"
    assert base64.b64decode(certify["certificate_signing_request"]) == b"r"


@pytest.mark.parametrize("name", list(RECORD["pods"]))
def test_this_trees_proxy_starts_with_what_the_old_injector_gives(name: str) -> None:
    given = RECORD["pods"][name]
    found = settings.read(given["environment"])
    assert settings.unknown(given["environment"]) == [], "a setting that went is one that somebody's pods still have"
    redirection = redirection_from(parser("test", "").parse_args(given["redirect"]))
    assert {each.port for each in found.inbound_listen_addr} == {redirection.inbound_port}


def test_the_record_is_what_the_pinned_release_says() -> None:
    try:
        found = pinned.recorded()
    except pinned.MissingError as error:
        pytest.skip(str(error))
    assert json.loads(found) == RECORD


def test_this_tree_can_be_recorded_too() -> None:
    """What the next pin will be made with."""
    assert set(record()) == set(RECORD)


def test_a_clone_without_the_release_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (pinned.ROOT / ".git").exists():
        pytest.skip("the pinned release (tree ...) is not here, and no clone can be made of what is none")
    command = ["git", "clone", "--quiet", "--depth=1", pinned.ROOT.as_uri(), str(tmp_path / "shallow")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    monkeypatch.setattr(pinned, "TREE", "f" * 40)
    with pytest.raises(AssertionError, match="pin a release that is in it"):
        pinned.require()
    monkeypatch.setattr(pinned, "ROOT", tmp_path / "shallow")
    with pytest.raises(pinned.MissingError, match="git fetch --unshallow"):
        pinned.require()
    monkeypatch.setattr(pinned, "ROOT", tmp_path)
    with pytest.raises(pinned.MissingError, match="this is no clone"):
        pinned.require()
