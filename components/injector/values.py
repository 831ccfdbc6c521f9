"""Reading the values of annotations and settings: pure. Each function returns the value in its normal form or raises
InvalidValueError.
"""

import ipaddress
import re
from decimal import Decimal
from math import ceil
from typing import Final

MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_DURATION: Final = 365 * MILLISECONDS["d"]
"""The proxy takes no longer one: it would refuse to start."""
SUFFIXES: Final = {
    **{suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate("num", -3)},
    **{suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
"""What the suffixes of a quantity stand for."""
MAX_CPUS: Final = Decimal(4_096)
"""No node has more: what is beyond is a limit that limits nothing."""
MAX_PORT_ENTRIES: Final = 1_000
"""Bounds one annotation's port list: each entry becomes a part of a packet-filter rule."""

_DURATION: Final = re.compile(r"([0-9]{1,10})(ms|s|m|h|d)")
_QUANTITY: Final = re.compile(r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LEVELS: Final = {"off": "error", "error": "error", "warn": "warn", "info": "info", "debug": "debug", "trace": "debug"}


class InvalidValueError(ValueError):
    """A value outside what is allowed; `allowed` says in words what is."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"allowed: {allowed}")
        self.allowed = allowed


def check_duration(value: str) -> str:
    """`<integer>(ms|s|m|h|d)`."""
    match = _DURATION.fullmatch(value)
    if match is None or int(match[1]) * MILLISECONDS[match[2]] > MAX_DURATION:
        raise InvalidValueError("a whole number followed by ms, s, m, h or d, such as 300ms or 2m, and at most 365d")
    return value


def milliseconds(value: str) -> int:
    """The length of a duration."""
    match = _DURATION.fullmatch(check_duration(value))
    assert match is not None  # check_duration has just said so
    return int(match[1]) * MILLISECONDS[match[2]]


def check_port_set(value: str, named: dict[str, int] | None = None) -> str:
    """`1-2,42` in a normal form without spaces; where `named` is given, names of container ports are replaced by their
    numbers.
    """
    allowed = "ports and ranges of ports between 1 and 65535, separated by commas, such as 25,3306,9000-9010"
    if named is not None:
        allowed += ", or names of the pod's container ports"
    entries = []
    for raw in value.split(","):
        entry = raw.strip()
        if not entry:
            continue
        if named is not None and entry in named:
            entries.append(str(named[entry]))
            continue
        first, dash, last = (part.strip() for part in entry.partition("-"))
        bounds = (first, last) if dash else (first,)
        if not all(bound.isascii() and bound.isdigit() and 1 <= int(bound) <= 65535 for bound in bounds):
            raise InvalidValueError(allowed)
        if dash and int(first) > int(last):
            raise InvalidValueError(allowed)
        entries.append("-".join(str(int(bound)) for bound in bounds))
    if len(entries) > MAX_PORT_ENTRIES:
        raise InvalidValueError(f"at most {MAX_PORT_ENTRIES} entries")
    return ",".join(entries)


def port_set(value: str) -> frozenset[int]:
    """Every port of a port set."""
    ports: set[int] = set()
    for entry in filter(None, check_port_set(value).split(",")):
        first, _, last = entry.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return frozenset(ports)


def check_networks(value: str) -> str:
    """A comma list of CIDR networks; a bare address stands for itself."""
    try:
        return ",".join(
            str(ipaddress.ip_network(part.strip(), strict=False)) for part in value.split(",") if part.strip()
        )
    except ValueError:
        raise InvalidValueError("networks in CIDR form, separated by commas, such as 10.1.0.0/16,fd00::/8") from None


def check_quantity(value: str) -> str:
    """A Kubernetes resource quantity."""
    if _QUANTITY.fullmatch(value) is None:
        raise InvalidValueError("a Kubernetes quantity, such as 100m, 0.5, 20Mi or 1G")
    return value


def whole_cpus(value: str) -> int:
    """How many CPUs a quantity begins to use: 2 for `1500m`."""
    match = _QUANTITY.fullmatch(check_quantity(value))
    assert match is not None  # check_quantity has just said so
    suffix = match[3] or ""
    scale = SUFFIXES.get(suffix) or Decimal(f"1{suffix}")
    return ceil(min(Decimal(match[1]) * scale, MAX_CPUS))


def check_ratio(value: str) -> str:
    """A part of a whole, such as of a node's CPUs."""
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", value) is None or not 0 < Decimal(value) <= 1:
        raise InvalidValueError("a number above 0 and up to 1, such as 0.5")
    return value


def check_integer(value: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and low <= int(value) <= high):
        raise InvalidValueError(f"a whole number between {low} and {high}")
    return int(value)


def check_boolean(value: str) -> bool:
    """`true` or `false`."""
    return check_choice(value, ("true", "false")) == "true"


def check_enabled(value: str) -> bool:
    """`enabled` or `disabled`."""
    return check_choice(value, ("enabled", "disabled")) == "enabled"


def check_choice(value: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise InvalidValueError(", ".join(choices))
    return value


def check_image(value: str) -> str:
    """An image reference."""
    if _IMAGE.fullmatch(value) is None:
        raise InvalidValueError("an image reference, such as registry.example/tulle/proxy")
    return value


def check_tag(value: str) -> str:
    """An image tag."""
    if _TAG.fullmatch(value) is None:
        raise InvalidValueError("an image tag: up to 128 letters, digits, dots, dashes and underscores")
    return value


def split_image(reference: str) -> tuple[str, str]:
    """An image reference as name and suffix (`:tag`, `@digest`, both or nothing); a registry's port is part of the
    name.
    """
    name, at, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name, tag = head, f":{tag}"
    else:
        tag = ""
    return name, tag + at + digest


def check_log_level(value: str) -> str:
    """A level of ours, or Linkerd's directives (`warn,linkerd=info`), of which the one for the proxy itself counts."""
    level = ""
    for directive in value.split(","):
        target, equals, name = directive.strip().rpartition("=")
        if name.lower() not in _LEVELS or (equals and not target):
            raise InvalidValueError("error, warn, info or debug (or a list of directives such as warn,linkerd=info)")
        if target == "linkerd" or (not target and not level):
            level = _LEVELS[name.lower()]
    return level or "info"
