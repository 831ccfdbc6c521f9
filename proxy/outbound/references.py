"""What a destination, its default route and its backend are called in metrics: pure, labels out of what discovery says.

They are Linkerd's references (group, kind, namespace, name, port, section); Gateway API routes will bring their own.
"""

from typing import Final, NamedTuple

Labels = tuple[tuple[str, str], ...]

ROUTE: Final[Labels] = (
    ("route_group", ""),
    ("route_kind", "default"),
    ("route_namespace", ""),
    ("route_name", "http"),
)
"""The route that every destination has."""
OPAQUE_ROUTE: Final[Labels] = (*ROUTE[:3], ("route_name", "opaq"))
"""The same for opaque connections."""


class References(NamedTuple):
    """Label sets of one destination: itself, requests by its default route, by that route's backend, its opaque
    connections, and its balancer."""

    parent: Labels
    route: Labels
    backend: Labels
    opaque: Labels
    balancer: Labels


def references(kind: str, authority: str, labels: Labels) -> References:
    """`kind` and `authority` are discovery's, `labels` those that hold for all endpoints (service, namespace).

    The kind of what discovery has not described yet is `unknown`.
    """
    named = dict(labels)
    if kind == "service":
        port = authority.rpartition(":")[2]
        what = ("core", "Service", named.get("namespace", ""), named.get("service", ""), port)
    else:
        what = ("", "default", "", {"pod": "endpoint", "external": "fallback"}.get(kind, "unknown"), "")
    parent, backend = _scoped("parent", what), _scoped("backend", what)
    return References(
        parent,
        # The hostname a client wrote is not told: it could be anything, as often as it likes.
        route=(*parent, *ROUTE, ("hostname", "")),
        backend=(*parent, *ROUTE, *backend),
        opaque=(*parent, *OPAQUE_ROUTE),
        balancer=(*parent, *backend),
    )


def _scoped(scope: str, what: tuple[str, ...]) -> Labels:
    names = ("group", "kind", "namespace", "name", "port")
    return (
        *((f"{scope}_{name}", value) for name, value in zip(names, what, strict=True)),
        (f"{scope}_section_name", ""),
    )
