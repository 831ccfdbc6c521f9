"""Sets of ports: read as annotations write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.destination.ports import EMPTY, PortsError, parse_named_ports, parse_ports


def test_single_ports_and_ranges() -> None:
    ports = parse_ports("25, 9000-9010,,65535")
    assert [port for port in (24, 25, 26, 8999, 9000, 9005, 9010, 9011, 65535) if port in ports] == [
        25,
        9000,
        9005,
        9010,
        65535,
    ]


def test_nothing_is_the_empty_set() -> None:
    assert parse_ports("") == parse_ports(" , ") == EMPTY


def test_names_of_ports() -> None:
    assert parse_named_ports("sql,80-81", {"sql": 3306}) == parse_ports("3306,80-81")


@pytest.mark.parametrize("bad", ["sql", "0", "65536", "9-8", "1-2-3", "-", "1-", "²", "+1"])
def test_anything_else_is_refused_by_name(bad: str) -> None:
    with pytest.raises(PortsError, match=r"port|range"):
        parse_ports(bad)


@given(st.text("0123456789-, a", max_size=20))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        ports = parse_ports(text)
    except PortsError:
        return
    assert all(1 <= first <= last <= 65535 for first, last in ports.ranges)
