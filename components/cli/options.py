"""The options that every command about a running mesh shares: which cluster, and which mesh on it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Globals:
    """Which cluster and which mesh a command is about."""

    kubeconfig: str | None
    context: str | None
    mesh_namespace: str


def mesh_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options, and hand them to it as its one parameter `options`."""

    @functools.wraps(function)
    def wrapped(kubeconfig: str | None, context: str | None, mesh_namespace: str, **rest: Any) -> None:
        function(options=Globals(kubeconfig, context, mesh_namespace), **rest)

    for option in (
        click.option(
            "--mesh-namespace",
            metavar="NAME",
            default="tulle",
            show_default=True,
            help="Namespace of the control plane.",
        ),
        click.option(
            "--context", metavar="NAME", help="Context in the kubeconfig (alone: in $KUBECONFIG or ~/.kube/config)."
        ),
        click.option(
            "--kubeconfig", metavar="FILE", help="Cluster access file (default: that of Tulle's own local cluster)."
        ),
    ):
        wrapped = option(wrapped)
    return wrapped
