"""Values of annotations: what is read, in which form it comes out, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.injector import values
from components.injector.values import InvalidValueError

PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("", ""),
        ("80", "80"),
        (" 25 , 587 ", "25,587"),
        ("9000-9010", "9000-9010"),
        ("http,81", "8080,81"),
        ("080", "80"),
    ],
)
def test_port_sets_come_out_in_one_form(given_: str, expected: str) -> None:
    assert values.check_port_set(given_, {"http": 8080}) == expected


@pytest.mark.parametrize(
    "bad", ["0", "65536", "80-", "-80", "90-80", "http", "80;81", "١٢", "1.5", "+80", "1-2-3", "80 81"]
)
def test_what_is_no_port_set_is_refused_with_what_is_allowed(bad: str) -> None:
    with pytest.raises(InvalidValueError, match="between 1 and 65535"):
        values.check_port_set(bad)


def test_a_port_set_is_bounded() -> None:
    with pytest.raises(InvalidValueError, match="at most"):
        values.check_port_set(",".join(map(str, range(1, 1002))))


@given(st.lists(st.one_of(PORTS.map(str), st.tuples(PORTS, PORTS).map(lambda each: f"{min(each)}-{max(each)}"))))
def test_normal_form_is_a_fixed_point_with_the_same_ports(entries: list[str]) -> None:
    text = ",".join(entries)
    normal = values.check_port_set(text)
    assert values.check_port_set(normal) == normal
    assert values.port_set(normal) == values.port_set(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("300ms", 300), ("2s", 2_000), ("1m", 60_000), ("1h", 3_600_000), ("365d", 31_536_000_000)]
)
def test_durations(text: str, expected: int) -> None:
    assert values.milliseconds(text) == expected


@pytest.mark.parametrize("bad", ["", "1", "1.5s", "s", "-1s", "1 s", "1w", "1s2m", "99999999999s", "366d"])
def test_what_is_no_duration_is_refused(bad: str) -> None:
    with pytest.raises(InvalidValueError, match="ms, s, m, h or d"):
        values.check_duration(bad)


@pytest.mark.parametrize("good", ["100m", "0.5", "1", "20Mi", "1G", "1e3", "2Ki", ".5"])
def test_quantities(good: str) -> None:
    assert values.check_quantity(good) == good


@pytest.mark.parametrize("bad", ["", "lots", "-1", "1 Gi", "1GB", "0x10", "1Mi2"])
def test_what_is_no_quantity_is_refused(bad: str) -> None:
    with pytest.raises(InvalidValueError, match="quantity"):
        values.check_quantity(bad)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("info", "info"),
        ("WARN", "warn"),
        ("trace", "debug"),
        ("off", "error"),
        ("warn,linkerd=info", "info"),
        ("linkerd=debug,warn", "debug"),
        ("warn,linkerd=info,hickory=error", "info"),
        ("warn,linkerd_app=debug", "warn"),
    ],
)
def test_log_levels_are_ours_or_linkerds(given_: str, expected: str) -> None:
    assert values.check_log_level(given_) == expected


@pytest.mark.parametrize("bad", ["", "loud", "linkerd=", "=info", "info,", "linkerd=verbose"])
def test_other_log_levels_are_refused(bad: str) -> None:
    with pytest.raises(InvalidValueError, match="error, warn, info or debug"):
        values.check_log_level(bad)


def test_networks_take_addresses_and_both_families() -> None:
    assert values.check_networks("10.1.2.3/8, fd00::1 ,192.0.2.1") == "10.0.0.0/8,fd00::1/128,192.0.2.1/32"
    with pytest.raises(InvalidValueError, match="CIDR"):
        values.check_networks("10.0.0.0/33")


@pytest.mark.parametrize(
    ("reference", "name", "suffix"),
    [
        ("proxy", "proxy", ""),
        ("proxy:1", "proxy", ":1"),
        ("registry:5000/tulle/proxy", "registry:5000/tulle/proxy", ""),
        ("registry:5000/tulle/proxy:1", "registry:5000/tulle/proxy", ":1"),
        ("r/p@sha256:ab", "r/p", "@sha256:ab"),
        ("r:1/p:2@sha256:ab", "r:1/p", ":2@sha256:ab"),
    ],
)
def test_images_are_split_where_the_tag_begins(reference: str, name: str, suffix: str) -> None:
    assert values.split_image(reference) == (name, suffix)


@pytest.mark.parametrize(("value", "low", "high"), [("0", 1, 9), ("10", 1, 9), ("", 0, 9), ("1.0", 0, 9), ("²", 0, 9)])
def test_numbers_outside_their_bounds_are_refused(value: str, low: int, high: int) -> None:
    with pytest.raises(InvalidValueError, match=f"between {low} and {high}"):
        values.check_integer(value, low, high)


def test_words_and_names() -> None:
    assert values.check_boolean("true") is True
    assert values.check_enabled("disabled") is False
    assert values.check_tag("v1.2_3-x") == "v1.2_3-x"
    assert values.check_image("a.b/c:1@sha256:00") == "a.b/c:1@sha256:00"
    for check, bad in (
        (values.check_boolean, "yes"),
        (values.check_enabled, "true"),
        (values.check_tag, "-a"),
        (values.check_image, "a b"),
    ):
        with pytest.raises(InvalidValueError):
            check(bad)
