"""What discovery says of failures and time, as the values that act on it: pure. Raises ValueError for what cannot
be.
"""

from proxy.control.messages import Balancing, Retries, Target, TimeLimits
from proxy.stack.breaker import BreakerPolicy
from proxy.stack.budget import RetryBudget
from proxy.stack.deadlines import Timeouts
from proxy.stack.endpoint import Penalty
from proxy.stack.exchange import Terms
from proxy.stack.retry import RetryPolicy


def terms(target: Target) -> Terms | None:
    """What requests are promised; None where it is nothing. A new value is a new budget."""
    if target.retries is None and target.time_limits == TimeLimits():
        return None
    limits = target.time_limits
    return Terms(
        _retry(target.retries) if target.retries is not None else None,
        Timeouts(limits.request, limits.response, limits.idle) if limits != TimeLimits() else None,
    )


def breaking(balancing: Balancing) -> BreakerPolicy | None:
    """When an endpoint is left alone; None for never."""
    rules = balancing.failure_accrual
    if rules is None:
        return None
    return BreakerPolicy(
        rules.max_failures,
        rules.min_penalty,
        rules.max_penalty,
        rules.jitter,
        rules.success_rate,
        rules.window,
        rules.min_requests,
    )


def penalty(balancing: Balancing) -> Penalty | None:
    """What an answer that asks for less counts as. Linkerd asks for it with the unified breaker only, which is the one
    that has a rate of success.
    """
    rules = balancing.failure_accrual
    if rules is None or rules.success_rate == 0.0:
        return None
    return Penalty(balancing.penalty, balancing.max_retry_after, balancing.penalizes_failures)


def _retry(given: Retries) -> RetryPolicy:
    budget = given.budget
    return RetryPolicy(
        statuses=[status for first, last in given.statuses for status in range(first, min(last, 599) + 1)],
        grpc_codes=given.grpc_codes,
        max_retries=given.limit,
        try_timeout=given.try_timeout,
        budget=RetryBudget(budget.ratio, budget.min_per_second, budget.ttl) if budget is not None else None,
    )
