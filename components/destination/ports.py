"""Sets of ports as annotations write them (`25,3306,9000-9010`): pure. Small, shared and quick to ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache


class PortsError(ValueError):
    """Not a set of ports; the message names the entry."""


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ranges of ports, both ends included."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self.ranges)


EMPTY = PortSet()


@lru_cache(maxsize=4096)
def parse_ports(text: str) -> PortSet:
    """Read a set of numbered ports; raises PortsError."""
    return PortSet(tuple(_range(entry) for entry in _entries(text)))


def parse_named_ports(text: str, named: Mapping[str, int]) -> PortSet:
    """Read a set in which ports may be named, too."""
    return parse_ports(",".join(str(named.get(entry, entry)) for entry in _entries(text)))


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _range(entry: str) -> tuple[int, int]:
    first, dash, last = (part.strip() for part in entry.partition("-"))
    bounds = (first, last) if dash else (first, first)
    if not all(each.isascii() and each.isdigit() and 1 <= int(each) <= 65535 for each in bounds):
        raise PortsError(f"{entry!r} is neither a port between 1 and 65535, nor a range, nor the name of a port")
    if int(bounds[0]) > int(bounds[1]):
        raise PortsError(f"{entry!r} is a range that ends before it starts")
    return int(bounds[0]), int(bounds[1])
