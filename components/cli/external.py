"""`tulle external`: machines outside the cluster. A token by which one of them joins."""

import datetime
import json
from typing import Final

import click

from components.cli.access import Access
from components.cli.options import Globals, mesh_options
from components.cli.target import find_target
from components.deploy.errors import ClusterError
from components.deploy.refs import Ref
from components.external.joining import MAX_LIFETIME, new_token, offered

API: Final = "workload.linkerd.io/v1beta1"
MINUTES: Final = MAX_LIFETIME.seconds // 60


@click.group()
def external() -> None:
    """Machines outside the cluster."""


@external.command()
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the ExternalWorkload.")
@click.option(
    "--minutes", type=click.IntRange(1, MINUTES), default=MINUTES, show_default=True, help="How long the token counts."
)
@mesh_options
def token(options: Globals, name: str, namespace: str, minutes: int) -> None:
    """Make the token by which one machine joins as ExternalWorkload NAME, and print it.

    It counts once. The cluster keeps its hash alone, and an earlier token that was not used counts no more.
    """
    access = Access(find_target(options.kubeconfig, options.context))
    ref = Ref(API, "ExternalWorkload", namespace, name)
    workload = access.get(ref)
    if workload is None:
        raise ClusterError(
            f"there is no ExternalWorkload {namespace}/{name}",
            "Declare it first (component ExternalWorkload, or kubectl apply), or name its namespace with -n.",
        )
    made, lifetime = new_token(), datetime.timedelta(minutes=minutes)
    changed = offered(workload, made, datetime.datetime.now(datetime.UTC), lifetime)
    # With the version that was read: a machine that joins at this moment is not forgotten.
    kept = access.request("PUT", f"{access.path(ref)}/status", body=json.dumps(changed))
    if "join" not in (kept.get("status") or {}):
        raise ClusterError(
            "the cluster's definition of ExternalWorkload has no status.join, so no token can be kept",
            "Have the stack declare the kind (externalWorkloads.kind), if nobody else needs it as it is.",
        )
    click.echo(made)
