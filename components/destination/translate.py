"""Views as messages of the contract: pure."""

from components.destination.balancing import DEFAULT, Balancing
from components.destination.index import EndpointView, Kind, View
from components.destination.terms import Retries, Terms
from proxy.api import destination_pb2 as pb

_KINDS = {
    Kind.SERVICE: pb.Kind.KIND_SERVICE,
    Kind.POD: pb.Kind.KIND_POD,
    Kind.EXTERNAL: pb.Kind.KIND_EXTERNAL,
}


def snapshot(view: View) -> pb.Update:
    """A view as a whole."""
    return pb.Update(
        snapshot=pb.Snapshot(
            kind=_KINDS[view.kind],
            protocol=_protocol(view.opaque),
            authority=view.authority,
            labels=dict(view.labels),
            endpoints=[_endpoint(each) for each in view.endpoints.values()],
            balancing=None if view.balancing == DEFAULT else _balancing(view.balancing),
            retries=None if view.terms.retries is None else _retries(view.terms.retries),
            time_limits=_time_limits(view.terms),
        )
    )


def update(old: View, new: View) -> pb.Update | None:
    """What brings a proxy from one view to another: nothing, a delta, or a snapshot if more than endpoints differ."""
    if _target(old) != _target(new):
        return snapshot(new)
    upsert = [each for address, each in new.endpoints.items() if old.endpoints.get(address) != each]
    remove = [address for address in old.endpoints if address not in new.endpoints]
    if not upsert and not remove:
        return None
    return pb.Update(delta=pb.Delta(upsert=[_endpoint(each) for each in upsert], remove=remove))


def _target(view: View) -> tuple[object, ...]:
    """All of a view but its endpoints."""
    return view.kind, view.opaque, view.authority, view.labels, view.balancing, view.terms


def _balancing(found: Balancing) -> pb.Balancing:
    rules = found.failure_accrual
    return pb.Balancing(
        failure_accrual=None
        if rules is None
        else pb.FailureAccrual(
            max_failures=rules.max_failures,
            min_penalty_ms=rules.min_penalty_ms,
            max_penalty_ms=rules.max_penalty_ms,
            jitter_permille=rules.jitter_permille,
            success_rate_permille=rules.success_rate_permille,
            window_ms=rules.window_ms,
            min_requests=rules.min_requests,
        ),
        penalty_ms=found.penalty_ms,
        max_retry_after_ms=found.max_retry_after_ms,
        penalizes_failures=found.penalizes_failures,
    )


def _retries(found: Retries) -> pb.Retries:
    budget = found.budget
    return pb.Retries(
        statuses=[pb.StatusRange(first=first, last=last) for first, last in found.statuses],
        grpc_codes=sum(1 << code for code in found.grpc_codes),
        limit=found.limit,
        try_timeout_ms=found.try_timeout_ms,
        budget=None
        if budget is None
        else pb.RetryBudget(
            ratio_permille=budget.ratio_permille, min_per_second=budget.min_per_second, ttl_ms=budget.ttl_ms
        ),
    )


def _time_limits(terms: Terms) -> pb.TimeLimits | None:
    if not (terms.request_ms or terms.response_ms or terms.idle_ms):
        return None
    return pb.TimeLimits(request_ms=terms.request_ms, response_ms=terms.response_ms, idle_ms=terms.idle_ms)


def _endpoint(view: EndpointView) -> pb.Endpoint:
    return pb.Endpoint(
        address=view.address, identity=view.identity, protocol=_protocol(view.opaque), labels=dict(view.labels)
    )


def _protocol(opaque: bool) -> pb.Protocol:
    return pb.Protocol.PROTOCOL_OPAQUE if opaque else pb.Protocol.PROTOCOL_DETECT
