"""Reading a Service's annotations: pure. Shapes that several share, and one error that names annotation, value and way
out. What they mean is in `balancing` and `terms`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
MAX_MS: Final = 24 * 3_600_000
"""A day: a time that lasts longer is a typing error."""

T = TypeVar("T")


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message names it and its value."""


def read(annotations: Mapping[str, str], name: str, default: T, parser: Callable[[str], T]) -> T:
    """The value of one annotation, or the default where it is not set; raises AnnotationError."""
    text = annotations.get(name)
    if text is None:
        return default
    try:
        return parser(text)
    except ValueError as error:
        raise AnnotationError(f"annotation {name}={text!r}: {error}") from None


def duration(text: str) -> int:
    """Milliseconds out of `<integer><unit>`; raises ValueError."""
    match = _DURATION.fullmatch(text)
    found = int(match[1]) * _UNITS[match[2]] if match is not None else 0
    if not 10 <= found <= MAX_MS:
        raise ValueError("write an integer with ms, s, m or h, from 10ms to 24h")
    return found
