"""The messages of `proxy/api/*.proto` as the proxy has them: pure. Values out of bytes and bytes out of values, no
meaning.

The field numbers below are those of the .proto files; a test holds each of them against the generated classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.settings import address as parse_address
from proxy.wire.protobuf import BYTES, VARINT, ProtobufError, blob, decoded_text, fields, signed, text

SERVICE: Final = "service"
POD: Final = "pod"
EXTERNAL: Final = "external"
_KINDS: Final = {1: SERVICE, 2: POD, 3: EXTERNAL}
_OPAQUE: Final = 1
MAX_COUNT: Final = (1 << 31) - 1

Labels = tuple[tuple[str, str], ...]


class MessageError(ValueError):
    """A message that cannot be applied; says what is wrong with it."""


class Endpoint(NamedTuple):
    """One place to send to. Equal endpoints need no new connection."""

    address: str
    host: str
    port: int
    identity: str
    """The identity to require; empty where the endpoint is outside the mesh and takes plaintext."""
    is_opaque: bool
    labels: Labels
    """Sorted by name, without the `dst_` prefix."""


class FailureAccrual(NamedTuple):
    """When an endpoint is left alone: times in seconds, rates and jitter as parts of 1. 0 turns a rule off."""

    max_failures: int
    min_penalty: float
    max_penalty: float
    jitter: float
    success_rate: float
    window: float
    min_requests: int


class Balancing(NamedTuple):
    """How a Service wants its endpoints treated; times in seconds, 0 where it does not say."""

    failure_accrual: FailureAccrual | None = None
    penalty: float = 0.0
    max_retry_after: float = 0.0
    penalizes_failures: bool = False


class RetryBudget(NamedTuple):
    """How many retries there may be: a part of all requests, and so many per second besides, over a time."""

    ratio: float
    min_per_second: int
    ttl: float


class Retries(NamedTuple):
    """Which answers are asked for again; times in seconds."""

    statuses: tuple[tuple[int, int], ...]
    """Inclusive ranges."""
    grpc_codes: tuple[int, ...]
    limit: int
    try_timeout: float
    budget: RetryBudget | None


class TimeLimits(NamedTuple):
    """In seconds; 0 is no limit."""

    request: float = 0.0
    response: float = 0.0
    idle: float = 0.0


class Target(NamedTuple):
    """What stands behind an original destination, endpoints apart."""

    kind: str
    is_opaque: bool
    authority: str
    labels: Labels
    balancing: Balancing = Balancing()
    retries: Retries | None = None
    time_limits: TimeLimits = TimeLimits()


class Snapshot(NamedTuple):
    """All there is."""

    target: Target
    endpoints: tuple[Endpoint, ...]


class Delta(NamedTuple):
    """What has changed since."""

    upsert: tuple[Endpoint, ...]
    remove: tuple[str, ...]


class Certificate(NamedTuple):
    """A leaf and its issuers (DER, leaf first), and when it ends (Unix seconds)."""

    chain: tuple[bytes, ...]
    valid_until: int


@dataclass(slots=True)
class _Fields:
    """The fields of one message by number: the last of each scalar, all of each that repeats."""

    integers: dict[int, int] = field(default_factory=dict)
    blobs: dict[int, list[bytes]] = field(default_factory=dict)
    """In the order in which each number was last seen."""

    def last_of(self, *numbers: int) -> int:
        """Which member of a `oneof` counts: the last one; 0 if there is none."""
        return next((number for number in reversed(self.blobs) if number in numbers), 0)

    def count(self, number: int) -> int:
        """A `uint32`, which goes on into a C int: what is beyond one is as good as for ever."""
        return min(self.integers.get(number, 0) & 0xFFFF_FFFF, MAX_COUNT)

    def text(self, number: int) -> str:
        return _text(self.blobs[number][-1]) if number in self.blobs else ""

    def all(self, number: int) -> Sequence[bytes]:
        return self.blobs.get(number, ())


def watch_request(namespace: str, pod: str, node: str, address: str) -> bytes:
    """destination.v1.WatchRequest."""
    return blob(1, text(1, namespace) + text(2, pod) + text(3, node)) + text(2, address)


def certify_request(
    identity: str,
    token: bytes,
    request: bytes,
    bundle_sha256: str,
    version: str,
    external_workload: str = "",
    current_chain: Sequence[bytes] = (),
) -> bytes:
    """identity.v1.CertifyRequest."""
    asked = text(1, identity) + blob(2, token) + blob(3, request) + text(4, bundle_sha256) + text(5, version)
    return asked + text(6, external_workload) + b"".join(blob(7, each) for each in current_chain)


def certificate(data: bytes) -> Certificate:
    """identity.v1.CertifyResponse; raises MessageError."""
    found = _parsed(data)
    if not found.all(1) or not found.all(1)[-1]:
        raise MessageError("the answer holds no certificate")
    return Certificate((found.all(1)[-1], *found.all(2)), signed(found.integers.get(3, 0)))


def update(data: bytes) -> Snapshot | Delta:
    """destination.v1.Update; raises MessageError."""
    found = _parsed(data)
    kind = found.last_of(1, 2)
    if kind == 1:
        return _snapshot(_parsed(found.all(1)[-1]))
    if kind == 2:
        delta = _parsed(found.all(2)[-1])
        return Delta(tuple(map(_endpoint, delta.all(1))), tuple(_text(item) for item in delta.all(2)))
    raise MessageError("an update that is neither snapshot nor delta")


def _snapshot(found: _Fields) -> Snapshot:
    number = found.integers.get(1, 0)
    if number not in _KINDS:
        raise MessageError(f"unknown kind {number}")
    target = Target(
        kind=_KINDS[number],
        is_opaque=found.integers.get(2, 0) == _OPAQUE,
        authority=found.text(3),
        labels=_labels(found.all(4)),
        balancing=_balancing(_parsed(found.all(6)[-1])) if found.all(6) else Balancing(),
        retries=_retries(_parsed(found.all(7)[-1])) if found.all(7) else None,
        time_limits=_time_limits(_parsed(found.all(8)[-1]).integers) if found.all(8) else TimeLimits(),
    )
    return Snapshot(target, tuple(map(_endpoint, found.all(5))))


def _balancing(found: _Fields) -> Balancing:
    accrual = None
    if found.all(1):
        rules = _parsed(found.all(1)[-1])
        accrual = FailureAccrual(
            max_failures=rules.count(1),
            min_penalty=rules.count(2) / 1000,
            max_penalty=rules.count(3) / 1000,
            jitter=rules.count(4) / 1000,
            success_rate=rules.count(5) / 1000,
            window=rules.count(6) / 1000,
            min_requests=rules.count(7),
        )
    return Balancing(
        failure_accrual=accrual,
        penalty=found.count(2) / 1000,
        max_retry_after=found.count(3) / 1000,
        penalizes_failures=bool(found.integers.get(4, 0)),
    )


def _retries(found: _Fields) -> Retries:
    budget = None
    if found.all(5):
        amounts = _parsed(found.all(5)[-1]).integers
        budget = RetryBudget(amounts.get(1, 0) / 1000, amounts.get(2, 0), amounts.get(3, 0) / 1000)
    ranges = [_parsed(each).integers for each in found.all(1)]
    codes = found.integers.get(2, 0)
    return Retries(
        statuses=tuple((each.get(1, 0), each.get(2, 0)) for each in ranges),
        grpc_codes=tuple(code for code in range(32) if codes >> code & 1),
        limit=found.integers.get(3, 0),
        try_timeout=found.integers.get(4, 0) / 1000,
        budget=budget,
    )


def _time_limits(integers: Mapping[int, int]) -> TimeLimits:
    return TimeLimits(integers.get(1, 0) / 1000, integers.get(2, 0) / 1000, integers.get(3, 0) / 1000)


def _endpoint(data: bytes) -> Endpoint:
    found = _parsed(data)
    written = found.text(1)
    try:
        host, port = parse_address(written)
    except ValueError as error:
        raise MessageError(f"endpoint {written!r}: {error}") from error
    return Endpoint(
        address=written,
        host=host,
        port=port,
        identity=found.text(2),
        is_opaque=found.integers.get(3, 0) == _OPAQUE,
        labels=_labels(found.all(4)),
    )


def _labels(entries: Sequence[bytes]) -> Labels:
    """A `map<string, string>`: entries with a key and a value, of which the last of each key counts."""
    pairs = {}
    for entry in entries:
        found = _parsed(entry)
        pairs[found.text(1)] = found.text(2)
    return tuple(sorted(pairs.items()))


def _text(value: bytes) -> str:
    try:
        return decoded_text(value)
    except ProtobufError as error:
        raise MessageError(str(error)) from error


def _parsed(data: bytes) -> _Fields:
    """Sorted by number; a field that a newer control plane added is left out by whoever does not ask for it."""
    found = _Fields()
    try:
        for number, kind, value in fields(data):
            if kind == VARINT and isinstance(value, int):
                found.integers[number] = value
            elif kind == BYTES and isinstance(value, bytes):
                values = found.blobs.pop(number, [])
                values.append(value)
                found.blobs[number] = values
    except ProtobufError as error:
        raise MessageError(str(error)) from error
    return found
