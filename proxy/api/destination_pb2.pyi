from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_SERVICE: _ClassVar[Kind]
    KIND_POD: _ClassVar[Kind]
    KIND_EXTERNAL: _ClassVar[Kind]

class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROTOCOL_DETECT: _ClassVar[Protocol]
    PROTOCOL_OPAQUE: _ClassVar[Protocol]
KIND_UNSPECIFIED: Kind
KIND_SERVICE: Kind
KIND_POD: Kind
KIND_EXTERNAL: Kind
PROTOCOL_DETECT: Protocol
PROTOCOL_OPAQUE: Protocol

class Workload(_message.Message):
    __slots__ = ("namespace", "pod", "node")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    node: str
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("workload", "address")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    workload: Workload
    address: str
    def __init__(self, workload: _Optional[_Union[Workload, _Mapping]] = ..., address: _Optional[str] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("snapshot", "delta")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    delta: Delta
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("kind", "protocol", "authority", "labels", "endpoints", "balancing", "retries", "time_limits")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    BALANCING_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMITS_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    protocol: Protocol
    authority: str
    labels: _containers.ScalarMap[str, str]
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    balancing: Balancing
    retries: Retries
    time_limits: TimeLimits
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., protocol: _Optional[_Union[Protocol, str]] = ..., authority: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., balancing: _Optional[_Union[Balancing, _Mapping]] = ..., retries: _Optional[_Union[Retries, _Mapping]] = ..., time_limits: _Optional[_Union[TimeLimits, _Mapping]] = ...) -> None: ...

class Retries(_message.Message):
    __slots__ = ("statuses", "grpc_codes", "limit", "try_timeout_ms", "budget")
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    GRPC_CODES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TRY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedCompositeFieldContainer[StatusRange]
    grpc_codes: int
    limit: int
    try_timeout_ms: int
    budget: RetryBudget
    def __init__(self, statuses: _Optional[_Iterable[_Union[StatusRange, _Mapping]]] = ..., grpc_codes: _Optional[int] = ..., limit: _Optional[int] = ..., try_timeout_ms: _Optional[int] = ..., budget: _Optional[_Union[RetryBudget, _Mapping]] = ...) -> None: ...

class StatusRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class RetryBudget(_message.Message):
    __slots__ = ("ratio_permille", "min_per_second", "ttl_ms")
    RATIO_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    MIN_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    ratio_permille: int
    min_per_second: int
    ttl_ms: int
    def __init__(self, ratio_permille: _Optional[int] = ..., min_per_second: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class TimeLimits(_message.Message):
    __slots__ = ("request_ms", "response_ms", "idle_ms")
    REQUEST_MS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_MS_FIELD_NUMBER: _ClassVar[int]
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    request_ms: int
    response_ms: int
    idle_ms: int
    def __init__(self, request_ms: _Optional[int] = ..., response_ms: _Optional[int] = ..., idle_ms: _Optional[int] = ...) -> None: ...

class Balancing(_message.Message):
    __slots__ = ("failure_accrual", "penalty_ms", "max_retry_after_ms", "penalizes_failures")
    FAILURE_ACCRUAL_FIELD_NUMBER: _ClassVar[int]
    PENALTY_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    PENALIZES_FAILURES_FIELD_NUMBER: _ClassVar[int]
    failure_accrual: FailureAccrual
    penalty_ms: int
    max_retry_after_ms: int
    penalizes_failures: bool
    def __init__(self, failure_accrual: _Optional[_Union[FailureAccrual, _Mapping]] = ..., penalty_ms: _Optional[int] = ..., max_retry_after_ms: _Optional[int] = ..., penalizes_failures: _Optional[bool] = ...) -> None: ...

class FailureAccrual(_message.Message):
    __slots__ = ("max_failures", "min_penalty_ms", "max_penalty_ms", "jitter_permille", "success_rate_permille", "window_ms", "min_requests")
    MAX_FAILURES_FIELD_NUMBER: _ClassVar[int]
    MIN_PENALTY_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_PENALTY_MS_FIELD_NUMBER: _ClassVar[int]
    JITTER_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    MIN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    max_failures: int
    min_penalty_ms: int
    max_penalty_ms: int
    jitter_permille: int
    success_rate_permille: int
    window_ms: int
    min_requests: int
    def __init__(self, max_failures: _Optional[int] = ..., min_penalty_ms: _Optional[int] = ..., max_penalty_ms: _Optional[int] = ..., jitter_permille: _Optional[int] = ..., success_rate_permille: _Optional[int] = ..., window_ms: _Optional[int] = ..., min_requests: _Optional[int] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("upsert", "remove")
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    upsert: _containers.RepeatedCompositeFieldContainer[Endpoint]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, upsert: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("address", "identity", "protocol", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    address: str
    identity: str
    protocol: Protocol
    labels: _containers.ScalarMap[str, str]
    def __init__(self, address: _Optional[str] = ..., identity: _Optional[str] = ..., protocol: _Optional[_Union[Protocol, str]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...
