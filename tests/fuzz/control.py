"""What the control plane, a peer's certificate or an operator may write: gRPC, protobuf, names and settings."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import DecodeError

from proxy import numbers, settings
from proxy.api import destination_pb2, identity_pb2, names
from proxy.control import messages
from proxy.tls.contexts import ALPN_OPAQUE, opaque_alpn, opaque_port
from proxy.tls.svid import names_agree
from proxy.wire import grpc, protobuf
from tests.fuzz.cuts import each_way

MESH: Final = ("tulle", "cluster.local")


def grpc_messages(data: bytes) -> None:
    """A stream of length-prefixed messages."""
    found, is_whole, failed = each_way(data, _framed)
    assert sum(len(message) + grpc.PREFIX_LENGTH for message in found) <= len(data)
    if not failed:
        assert _framed([b"".join(map(grpc.encode, found))]) == (found, True, False)
        assert is_whole == (b"".join(map(grpc.encode, found)) == data)


def _framed(pieces: list[bytes]) -> tuple[list[bytes], bool, bool]:
    reader = grpc.MessageReader()
    found: list[bytes] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
    except grpc.FramingError:
        # What came whole before the fault is handed on or not, as the cut has it: the call has failed either way.
        return [], False, True
    return found, reader.is_between_messages, False


def grpc_status(data: bytes) -> None:
    """A section of fields, one a line, in which a call's end is looked for."""
    fields = [(name, value.strip()) for name, _, value in (line.rpartition(b": ") for line in data.split(b"\n"))]
    for status in (grpc.status_from_headers(fields), grpc.status_from_trailers(fields)):
        assert status is None or (isinstance(status.code, int) and status.name)


def protobuf_fields(data: bytes) -> None:
    """The fields of any message."""
    try:
        found = list(protobuf.fields(data))
    except protobuf.ProtobufError:
        return
    assert sum(len(value) if isinstance(value, bytes) else 1 for _, _, value in found) < max(1, len(data))
    printed = b"".join(map(_field, found))
    assert list(protobuf.fields(printed)) == found
    for _, _, value in found:
        if isinstance(value, int):
            assert protobuf.varint(protobuf.signed(value)) == protobuf.varint(value)


def _field(item: tuple[int, int, int | bytes]) -> bytes:
    number, kind, value = item
    key = protobuf.varint(number << 3 | kind)
    if isinstance(value, int):
        return key + protobuf.varint(value)
    return key + (protobuf.varint(len(value)) if kind == protobuf.BYTES else b"") + value


def update(data: bytes) -> None:
    """What discovery sends; what protobuf's classes make of it and print, we read as they do."""
    pair = _both(data, messages.update, destination_pb2.Update)
    if pair is None:
        return
    ours, theirs = pair
    if isinstance(ours, messages.Delta):
        assert list(ours.remove) == list(theirs.delta.remove)
        _are_alike(ours.upsert, theirs.delta.upsert)
        return
    target, snapshot = ours.target, theirs.snapshot
    assert (target.authority, dict(target.labels)) == (snapshot.authority, dict(snapshot.labels))
    assert target.is_opaque == (snapshot.protocol == destination_pb2.PROTOCOL_OPAQUE)
    _are_alike(ours.endpoints, snapshot.endpoints)
    rules, theirs = target.balancing.failure_accrual, snapshot.balancing.failure_accrual
    assert (rules is not None) == snapshot.balancing.HasField("failure_accrual")
    assert target.balancing.penalty == min(snapshot.balancing.penalty_ms, messages.MAX_COUNT) / 1000
    if rules is not None:
        assert rules.max_failures == min(theirs.max_failures, messages.MAX_COUNT)
        assert rules.min_requests == min(theirs.min_requests, messages.MAX_COUNT)


def certificate(data: bytes) -> None:
    """What identity answers."""
    pair = _both(data, messages.certificate, identity_pb2.CertifyResponse)
    if pair is not None:
        ours, theirs = pair
        chain = (theirs.leaf_certificate, *theirs.intermediate_certificates)
        assert ours == messages.Certificate(chain, theirs.valid_until)


def _both(data: bytes, read: Callable[[bytes], Any], kind: Any) -> tuple[Any, Any] | None:
    """A message as protobuf reads it, and as we read what protobuf then prints; None where either refuses.

    Printed by protobuf first, because it merges a message that stands twice where one belongs, and we take the last.
    """
    with suppress(messages.MessageError):
        read(data)
    try:
        theirs = kind.FromString(data)
    except DecodeError:
        return None
    try:
        return read(theirs.SerializeToString()), theirs
    except messages.MessageError:
        return None


def _are_alike(ours: Sequence[messages.Endpoint], theirs: Sequence[Any]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.address, mine.identity, dict(mine.labels)) == (other.address, other.identity, dict(other.labels))
        assert mine.is_opaque == (other.protocol == destination_pb2.PROTOCOL_OPAQUE)


def identity_name(data: bytes) -> None:
    """A name out of a certificate; and the parts of one, a line each."""
    written = data.decode("ascii", "replace")
    with suppress(names.InvalidNameError):
        found = names.parse_dns_name(written, *MESH)
        assert found.dns_name == written
        assert len(written) <= names.MAX_DNS_NAME
    parts = written.split("\n")
    if len(parts) == 2:
        with suppress(names.InvalidNameError):
            made = names.workload_identity(parts[0], parts[1], *MESH)
            assert names.parse_dns_name(made.dns_name, *MESH) == made, "the name says somebody else"
            assert made.spiffe_id.isascii() and made.spiffe_id.count("/") == 6


def leaf_names(data: bytes) -> None:
    """The DNS name and the SPIFFE ID of a peer's certificate, a line each."""
    dns, _, uri = data.partition(b"\n")
    taken = names_agree(dns, uri)
    workload, _, rest = dns.partition(b".serviceaccount.identity.")
    account, _, namespace = workload.rpartition(b".")
    domain = rest.partition(b".")[2]
    assert not taken or uri == b"spiffe://%b/ns/%b/sa/%b" % (domain, namespace, account)
    assert not taken or not set(data) - set(b"abcdefghijklmnopqrstuvwxyz0123456789-._:/\n")
    with suppress(names.InvalidNameError, UnicodeDecodeError):
        made = names.parse_dns_name(dns.decode("ascii"), *MESH)
        agree = names_agree(dns, made.spiffe_id.encode())
        # A service account may be called what separates the parts of a name; such a one gets no connection.
        assert agree or b".serviceaccount.identity." in dns[: -len(".serviceaccount.identity.tulle.cluster.local")]


def alpn(data: bytes) -> None:
    """The protocol that a peer states, out of its ClientHello."""
    written = data.decode("ascii", "replace")
    port = opaque_port(written)
    assert 0 <= port < 65536
    if port:
        assert opaque_port(opaque_alpn(port)) == port
        assert written.startswith(f"{ALPN_OPAQUE}/")
        assert int(written.rpartition("/")[2]) == port


PRINTED: Final[tuple[tuple[Callable[[str], Any], Callable[[Any], str]], ...]] = (
    (settings.port, str),
    (numbers.count, str),
    (settings.boolean, lambda value: str(value).lower()),
    (settings.port_set, str),
    (settings.address, str),
    (settings.listen_addresses, lambda found: ",".join(map(str, found)) or "auto"),
    (settings.ip_list, lambda found: ",".join(map(str, found))),
    (settings.network_list, lambda found: ",".join(map(str, found))),
    (settings.text_list, ",".join),
    (settings.probes, lambda found: json.dumps([probe._asdict() for probe in found])),
    (settings.duration, lambda seconds: f"{round(seconds * 1000)}ms"),
)
"""Each parser of a setting beside what prints its values."""


def setting(data: bytes) -> None:
    """A variable's value, given to every parser: a value that prints as what it was read from, or a ValueError."""
    written = data.decode("utf-8", "surrogateescape")
    for parse, printed in PRINTED:
        try:
            found = parse(written)
        except ValueError:
            continue
        assert parse(printed(found)) == found, f"{parse.__name__}: {found!r} prints as {printed(found)!r}"
