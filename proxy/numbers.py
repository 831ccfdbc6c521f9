"""Numbers as settings write them: pure. Each function raises ValueError with what to write instead."""

import re


def count(value: str) -> int:
    """A positive integer."""
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1 << 31:
        raise ValueError("write a positive integer")
    return int(value)


def optional_count(value: str) -> int:
    """A positive integer, or 0 where nothing is written."""
    return count(value) if value else 0


def optional_share(value: str) -> float:
    """A part of a whole, more than nothing and at most all of it; 0 where nothing is written."""
    if not value:
        return 0.0
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value) or not 0 < float(value) <= 1:
        raise ValueError("write a number above 0 and up to 1, such as 0.5")
    return float(value)
