"""What a Service's annotations say of answers that fail or are late."""

import pytest

from components.destination.annotations import AnnotationError
from components.destination.model import service_facts
from components.destination.objects import Meta, Service, ServiceSpec
from components.destination.terms import NONE, Budget, Retries, Terms, grpc_codes, parse, statuses

R = "retry.linkerd.io/"
T = "timeout.linkerd.io/"


def test_a_service_that_says_nothing_has_no_terms() -> None:
    assert parse({}) == NONE
    assert parse({f"{R}limit": "3", f"{R}timeout": "1s"}) == NONE, "what to ask for again is not said"


def test_retries_have_linkerds_defaults() -> None:
    assert parse({f"{R}http": "5xx"}) == Terms(Retries(((500, 599),), (), 1, 0, Budget(200, 10, 10_000)))
    assert parse({f"{R}grpc": "unavailable"}).retries == Retries((), (14,))


def test_everything_is_read() -> None:
    found = parse({f"{R}http": "gateway-error,429", f"{R}grpc": "internal,cancelled", f"{R}limit": "3",
                   f"{R}timeout": "300ms", "retry.tulle.io/budget": "0.5/3/20s", f"{T}request": "5s",
                   f"{T}response": "4s", f"{T}idle": "1m"})  # fmt: skip
    retries = Retries(((429, 429), (502, 504)), (1, 13), 3, 300, Budget(500, 3, 20_000))
    assert found == Terms(retries, 5000, 4000, 60_000)
    unbound = parse({f"{R}http": "503", "retry.tulle.io/budget": "none"}).retries
    assert unbound is not None
    assert unbound.budget is None


@pytest.mark.parametrize(
    ("text", "ranges"),
    [("5xx", ((500, 599),)), ("gateway-error", ((502, 504),)), ("500,502-504", ((500, 500), (502, 504))),
     ("429, 503", ((429, 429), (503, 503))), ("4xx,gateway-error,505", ((400, 499), (502, 505))),
     ("500-502,501-504,4xx", ((400, 504),))],
)  # fmt: skip
def test_statuses_are_read_as_linkerd_writes_them(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert statuses(text) == ranges


@pytest.mark.parametrize("text", ["", "5x", "200", "504-502", "600", "500-", "-500", "6xx", "gateway"])
def test_statuses_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no status"):
        statuses(text)


def test_grpc_codes_are_read_by_name() -> None:
    assert grpc_codes("unavailable, cancelled,resource-exhausted") == (1, 8, 14)
    with pytest.raises(ValueError, match="'ok' is none of"):
        grpc_codes("ok")


@pytest.mark.parametrize(
    ("name", "text"),
    [(f"{R}limit", "0"), (f"{R}limit", "101"), (f"{R}limit", "-1"), (f"{R}timeout", "1"), (f"{T}request", "0s"),
     (f"{T}idle", "25h"), ("retry.tulle.io/budget", "0.2/10"), ("retry.tulle.io/budget", "0.2/10/500ms"),
     ("retry.tulle.io/budget", "some")],
)  # fmt: skip
def test_what_cannot_be_is_named_with_its_value(name: str, text: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        parse({f"{R}http": "5xx", name: text})
    assert name in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_service_with_a_bad_annotation_is_called_as_ever_and_says_so() -> None:
    annotations = {f"{R}http": "x", "balancer.linkerd.io/failure-accrual": "consecutive"}
    bad = service_facts(Service(Meta(name="web", namespace="demo", annotations=annotations), ServiceSpec()))
    assert bad.terms == NONE
    assert bad.balancing.failure_accrual is not None, "the other annotations hold"
    assert "'x'" in bad.problem
