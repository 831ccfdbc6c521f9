"""How many file descriptors the process may have: asked of the kernel once, at start. Does that I/O and no other."""

import resource
from typing import Final

PER_CLIENT: Final = 2
"""Descriptors that a client's connection costs: its own, and that of the connection dialled for it."""
DIRECTIONS: Final = 2
"""Inbound and outbound have an equal share, so that neither starves the other."""


def raise_limit() -> int:
    """Raise the soft limit to the hard one, and return it.

    The soft limit that shells and runtimes hand down (1,024) is for programs that use `select`. Where the hard one
    cannot be had, the soft one stays: a proxy with few descriptors is better than none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


def share(limit: int, wanted: int) -> int:
    """How many connections of clients each direction may have: what is `wanted`, as far as descriptors reach for both
    directions and for what is dialled.
    """
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, limit // (PER_CLIENT * DIRECTIONS)))
