"""Our small reading and writing of the API's messages, held against the classes that protoc generates from the same
files.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import destination_pb2, identity_pb2
from proxy.control import messages
from proxy.control.messages import MessageError
from proxy.wire import protobuf

texts = st.text(max_size=20)
labels = st.dictionaries(texts, texts, max_size=4)
addresses = st.builds(
    lambda ip, port: f"{ip if '.' in ip else f'[{ip}]'}:{port}",
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    st.integers(1, 65535),
)
endpoints = st.builds(
    destination_pb2.Endpoint,
    address=addresses,
    identity=texts,
    protocol=st.sampled_from([destination_pb2.PROTOCOL_DETECT, destination_pb2.PROTOCOL_OPAQUE]),
    labels=labels,
)
KINDS = {
    destination_pb2.KIND_SERVICE: messages.SERVICE,
    destination_pb2.KIND_POD: messages.POD,
    destination_pb2.KIND_EXTERNAL: messages.EXTERNAL,
}


def same(ours: messages.Endpoint, theirs: destination_pb2.Endpoint) -> None:
    assert (ours.address, ours.identity) == (theirs.address, theirs.identity)
    assert ours.is_opaque == (theirs.protocol == destination_pb2.PROTOCOL_OPAQUE)
    assert dict(ours.labels) == dict(theirs.labels)
    assert list(ours.labels) == sorted(ours.labels)
    assert theirs.address.endswith(f":{ours.port}")


@given(texts, texts, texts, texts)
def test_a_watch_request_is_what_protoc_makes_of_it(namespace: str, pod: str, node: str, address: str) -> None:
    ours = destination_pb2.WatchRequest.FromString(messages.watch_request(namespace, pod, node, address))
    workload = destination_pb2.Workload(namespace=namespace, pod=pod, node=node)
    assert (ours.workload, ours.address) == (workload, address)


@given(texts, st.binary(max_size=300), st.binary(max_size=300), texts, texts, texts, st.lists(st.binary(min_size=1)))
def test_a_certify_request_is_what_protoc_makes_of_it(
    identity: str, token: bytes, request: bytes, sha: str, version: str, workload: str, chain: list[bytes]
) -> None:
    theirs = identity_pb2.CertifyRequest(
        identity=identity,
        token=token,
        certificate_signing_request=request,
        trust_bundle_sha256=sha,
        proxy_version=version,
        external_workload=workload,
        current_chain=chain,
    )
    ours = messages.certify_request(identity, token, request, sha, version, workload, chain)
    assert ours == theirs.SerializeToString()


@given(
    st.binary(min_size=1, max_size=300), st.lists(st.binary(min_size=1, max_size=50)), st.integers(-(2**63), 2**63 - 1)
)
def test_a_certificate_is_read(leaf: bytes, issuers: list[bytes], until: int) -> None:
    theirs = identity_pb2.CertifyResponse(leaf_certificate=leaf, intermediate_certificates=issuers, valid_until=until)
    ours = messages.certificate(theirs.SerializeToString())
    assert ours == messages.Certificate((leaf, *issuers), until)


@given(st.sampled_from(list(KINDS)), st.booleans(), texts, labels, st.lists(endpoints, max_size=5))
def test_a_snapshot_is_read(
    kind: destination_pb2.Kind,
    opaque: bool,
    authority: str,
    found: dict[str, str],
    places: list[destination_pb2.Endpoint],
) -> None:
    snapshot = destination_pb2.Snapshot(
        kind=kind,
        protocol=destination_pb2.PROTOCOL_OPAQUE if opaque else destination_pb2.PROTOCOL_DETECT,
        authority=authority,
        labels=found,
        endpoints=places,
    )
    ours = messages.update(destination_pb2.Update(snapshot=snapshot).SerializeToString())
    assert isinstance(ours, messages.Snapshot)
    assert ours.target == messages.Target(KINDS[kind], opaque, authority, tuple(sorted(found.items())))
    assert len(ours.endpoints) == len(places)
    for mine, theirs in zip(ours.endpoints, places, strict=True):
        same(mine, theirs)


MILLIS = st.integers(0, 10**8)


@given(st.booleans(), MILLIS, MILLIS, MILLIS, MILLIS, st.integers(0, 1000), MILLIS, MILLIS, st.booleans())
def test_how_endpoints_are_treated_is_read(
    breaks: bool, failures: int, least: int, most: int, jitter: int, rate: int, window: int, requests: int, fails: bool
) -> None:
    rules = destination_pb2.FailureAccrual(
        max_failures=failures, min_penalty_ms=least, max_penalty_ms=most, jitter_permille=jitter,
        success_rate_permille=rate, window_ms=window, min_requests=requests,
    )  # fmt: skip
    balancing = destination_pb2.Balancing(
        failure_accrual=rules if breaks else None, penalty_ms=least, max_retry_after_ms=most, penalizes_failures=fails
    )
    snapshot = destination_pb2.Snapshot(kind=destination_pb2.KIND_SERVICE, balancing=balancing)
    ours = messages.update(destination_pb2.Update(snapshot=snapshot).SerializeToString())
    assert isinstance(ours, messages.Snapshot)
    accrual = messages.FailureAccrual(
        failures, least / 1000, most / 1000, jitter / 1000, rate / 1000, window / 1000, requests
    )
    assert ours.target.balancing == messages.Balancing(accrual if breaks else None, least / 1000, most / 1000, fails)


RANGES = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 600)), max_size=4)


@given(RANGES, st.sets(st.integers(0, 31)), MILLIS, MILLIS, st.none() | st.tuples(MILLIS, MILLIS, MILLIS))
def test_what_is_asked_for_again_is_read(
    ranges: list[tuple[int, int]], codes: set[int], limit: int, time: int, budget: tuple[int, int, int] | None
) -> None:
    retries = destination_pb2.Retries(
        statuses=[destination_pb2.StatusRange(first=first, last=last) for first, last in ranges],
        grpc_codes=sum(1 << code for code in codes), limit=limit, try_timeout_ms=time,
        budget=None if budget is None else destination_pb2.RetryBudget(
            ratio_permille=budget[0], min_per_second=budget[1], ttl_ms=budget[2]
        ),
    )  # fmt: skip
    limits = destination_pb2.TimeLimits(request_ms=limit, response_ms=time, idle_ms=limit)
    snapshot = destination_pb2.Snapshot(kind=destination_pb2.KIND_SERVICE, retries=retries, time_limits=limits)
    ours = messages.update(destination_pb2.Update(snapshot=snapshot).SerializeToString())
    assert isinstance(ours, messages.Snapshot)
    spent = None if budget is None else messages.RetryBudget(budget[0] / 1000, budget[1], budget[2] / 1000)
    assert ours.target.retries == messages.Retries(tuple(ranges), tuple(sorted(codes)), limit, time / 1000, spent)
    assert ours.target.time_limits == messages.TimeLimits(limit / 1000, time / 1000, limit / 1000)


@given(st.lists(endpoints, max_size=5), st.lists(texts, max_size=5))
def test_a_delta_is_read(places: list[destination_pb2.Endpoint], gone: list[str]) -> None:
    update = destination_pb2.Update(delta=destination_pb2.Delta(upsert=places, remove=gone))
    ours = messages.update(update.SerializeToString())
    assert isinstance(ours, messages.Delta)
    assert list(ours.remove) == gone
    for mine, theirs in zip(ours.upsert, places, strict=True):
        same(mine, theirs)


def numbers(descriptor: object) -> dict[str, int]:
    return {field.name: field.number for field in descriptor.fields}  # type: ignore[attr-defined]


def test_the_api_has_no_field_that_is_passed_over() -> None:
    """A field added to a .proto file must be read here, or said not to matter: this list is that statement."""
    assert numbers(destination_pb2.Endpoint.DESCRIPTOR) == {"address": 1, "identity": 2, "protocol": 3, "labels": 4}
    assert numbers(destination_pb2.Snapshot.DESCRIPTOR) == {
        "kind": 1, "protocol": 2, "authority": 3, "labels": 4, "endpoints": 5, "balancing": 6, "retries": 7,
        "time_limits": 8,
    }  # fmt: skip
    assert numbers(destination_pb2.Balancing.DESCRIPTOR) == {
        "failure_accrual": 1, "penalty_ms": 2, "max_retry_after_ms": 3, "penalizes_failures": 4,
    }  # fmt: skip
    assert numbers(destination_pb2.FailureAccrual.DESCRIPTOR) == {
        "max_failures": 1, "min_penalty_ms": 2, "max_penalty_ms": 3, "jitter_permille": 4, "success_rate_permille": 5,
        "window_ms": 6, "min_requests": 7,
    }  # fmt: skip
    assert numbers(destination_pb2.Retries.DESCRIPTOR) == {
        "statuses": 1, "grpc_codes": 2, "limit": 3, "try_timeout_ms": 4, "budget": 5,
    }  # fmt: skip
    assert numbers(destination_pb2.StatusRange.DESCRIPTOR) == {"first": 1, "last": 2}
    assert numbers(destination_pb2.RetryBudget.DESCRIPTOR) == {"ratio_permille": 1, "min_per_second": 2, "ttl_ms": 3}
    assert numbers(destination_pb2.TimeLimits.DESCRIPTOR) == {"request_ms": 1, "response_ms": 2, "idle_ms": 3}
    assert numbers(destination_pb2.Delta.DESCRIPTOR) == {"upsert": 1, "remove": 2}
    assert numbers(destination_pb2.Update.DESCRIPTOR) == {"snapshot": 1, "delta": 2}
    assert numbers(destination_pb2.WatchRequest.DESCRIPTOR) == {"workload": 1, "address": 2}
    assert numbers(destination_pb2.Workload.DESCRIPTOR) == {"namespace": 1, "pod": 2, "node": 3}
    assert numbers(identity_pb2.CertifyRequest.DESCRIPTOR) == {
        "identity": 1, "token": 2, "certificate_signing_request": 3, "trust_bundle_sha256": 4, "proxy_version": 5,
        "external_workload": 6, "current_chain": 7,
    }  # fmt: skip
    assert numbers(identity_pb2.CertifyResponse.DESCRIPTOR) == {
        "leaf_certificate": 1, "intermediate_certificates": 2, "valid_until": 3,
    }  # fmt: skip
    assert dict(destination_pb2.Kind.items()) == {
        "KIND_UNSPECIFIED": 0, "KIND_SERVICE": 1, "KIND_POD": 2, "KIND_EXTERNAL": 3,
    }  # fmt: skip
    assert dict(destination_pb2.Protocol.items()) == {"PROTOCOL_DETECT": 0, "PROTOCOL_OPAQUE": 1}


def test_a_field_from_the_future_is_left_alone() -> None:
    future = protobuf.varint(99 << 3) + b"\x05" + protobuf.blob(98, b"x") + protobuf.varint(97 << 3 | 5) + b"abcd"
    snapshot = protobuf.varint(1 << 3) + b"\1" + future + protobuf.varint(96 << 3 | 1) + b"abcdefgh"
    ours = messages.update(protobuf.blob(1, snapshot) + future)
    assert isinstance(ours, messages.Snapshot)
    assert ours.target.kind == "service"


@given(st.binary(max_size=200))
def test_no_bytes_are_worse_than_an_error(data: bytes) -> None:
    for read in (messages.update, messages.certificate):
        try:
            read(data)
        except MessageError:
            continue


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a\x05abc", "cut off"),
        (b"\x08", "cut off"),
        (b"\xff" * 11, "more than 64 bits"),
        (b"\x00\x01", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"", "neither snapshot nor delta"),
        (protobuf.blob(2, protobuf.blob(2, b"\xff")), "not UTF-8"),
        (protobuf.blob(1, b"\x08\x09"), "unknown kind 9"),
        (
            protobuf.blob(2, protobuf.text(1, "")) + protobuf.blob(2, protobuf.blob(1, protobuf.text(1, "web"))),
            "endpoint 'web'",
        ),
    ],
)
def test_what_is_wrong_is_said(data: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        messages.update(data)


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_survive(value: int) -> None:
    ((_, _, found),) = protobuf.fields(b"\x08" + protobuf.varint(value))
    assert isinstance(found, int)
    assert protobuf.signed(found) == value


def test_text_where_an_integer_stands_is_an_error() -> None:
    with pytest.raises(protobuf.ProtobufError):
        protobuf.decoded_text(5)
