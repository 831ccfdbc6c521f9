"""What a Service's annotations say of how its endpoints are treated."""

import pytest

from components.destination.annotations import AnnotationError
from components.destination.balancing import DEFAULT, Balancing, FailureAccrual, parse
from components.destination.model import service_facts
from components.destination.objects import Meta, Service, ServiceSpec

P = "balancer.linkerd.io/failure-accrual"
A = "balancer.alpha.linkerd.io/"


def test_a_service_that_says_nothing_has_no_breaker() -> None:
    assert parse({}) == DEFAULT
    assert parse({"balancer.linkerd.io/other": "x"}).failure_accrual is None


def test_consecutive_has_linkerds_defaults() -> None:
    assert parse({P: "consecutive"}) == Balancing(FailureAccrual(7, 1000, 60_000, 500, 0, 10_000, 5))


def test_unified_adds_the_rate_of_success() -> None:
    found = parse({P: "unified", f"{A}failure-accrual-success-rate-threshold": "0.95",
                   f"{A}failure-accrual-success-rate-window": "30s", f"{A}failure-accrual-min-requests": "20",
                   f"{P}-consecutive-max-failures": "0"}).failure_accrual  # fmt: skip
    assert found == FailureAccrual(0, 1000, 60_000, 500, 950, 30_000, 20)
    default = parse({P: "unified"}).failure_accrual
    assert default is not None
    assert default.success_rate_permille == 800


def test_every_parameter_is_read() -> None:
    found = parse({P: "consecutive", f"{P}-consecutive-max-failures": "3", f"{P}-consecutive-min-penalty": "200ms",
                   f"{P}-consecutive-max-penalty": "2m", f"{P}-consecutive-jitter-ratio": "0.25",
                   f"{A}load-biaser-penalty": "2s", f"{A}load-biaser-max-retry-after": "1m",
                   f"{A}penalize-failures": "true"})  # fmt: skip
    assert found == Balancing(FailureAccrual(3, 200, 120_000, 250, 0, 10_000, 5), 2000, 60_000, True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (P, "always"), (f"{P}-consecutive-max-failures", "0"), (f"{P}-consecutive-max-failures", "-1"),
        (f"{P}-consecutive-max-failures", "seven"), (f"{P}-consecutive-min-penalty", "1"),
        (f"{P}-consecutive-min-penalty", "0s"), (f"{P}-consecutive-max-penalty", "25h"),
        (f"{P}-consecutive-jitter-ratio", "101"), (f"{P}-consecutive-jitter-ratio", "nan"),
        (f"{A}penalize-failures", "yes"), (f"{A}load-biaser-penalty", "1e3s"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_with_its_value(name: str, text: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        parse({P: "consecutive", name: text})
    assert name in str(caught.value)
    assert repr(text) in str(caught.value)


def test_penalties_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(AnnotationError, match="61000 ms, is over its greatest, 60000 ms"):
        parse({P: "consecutive", f"{P}-consecutive-min-penalty": "61s"})


def test_a_service_with_a_bad_annotation_is_balanced_as_ever_and_says_so() -> None:
    def facts(annotations: dict[str, str]) -> object:
        return service_facts(Service(Meta(name="web", namespace="demo", annotations=annotations), ServiceSpec()))

    bad = service_facts(Service(Meta(name="web", namespace="demo", annotations={P: "x"}), ServiceSpec()))
    assert bad.balancing == DEFAULT
    assert "'x'" in bad.problem
    assert facts({P: "consecutive"}) != facts({}), "a changed annotation is a change"
