"""`tulle upgrade`: bring running proxies to the version that the control plane declares, wave by wave."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.cli.deploy_commands import confirm, stack_options
from components.cli.output import print_json

if TYPE_CHECKING:
    from components.deploy.refs import Target
    from components.upgrade.settings import Settings
    from components.upgrade.survey import Survey
    from components.upgrade.waves import Wave


@click.command()
@stack_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask before restarting anything.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the waves that are left; restart nothing.")
@click.option("--accept", is_flag=True, help="After a stop: take the success measured now as what it is compared with.")
def upgrade(yes: bool, plan_only: bool, accept: bool, output: str, **options: Any) -> None:
    """Restart workloads whose proxies are older than the control plane's, wave by wave.

    Namespace by namespace of the stack, `upgrade.percent` of the workloads at a time, `upgrade.pause` in between. It
    stops where a rollout fails or success in Prometheus falls by more than `upgrade.tolerance`; run it again to go on.
    """
    from components.cli.access import Access
    from components.upgrade.running import Upgrade, measure_of

    as_json = output == "json"
    target, settings = _chosen(options)
    with contextlib.closing(Access(target)) as access:
        run = Upgrade(access, settings, measure_of(access, settings), lambda line: click.echo(line, err=as_json))
        planned, found = run.plan()
        if not as_json:
            _show(planned, found)
        if plan_only:
            if as_json:
                print_json({**_json(found), "waves": [[str(each) for each in wave.workloads] for wave in planned]})
            return
        if planned:
            confirm(yes, "Restart these workloads?")
        if accept:
            run.accept()
        try:
            outcome = run.run()
        except KeyboardInterrupt:
            click.echo("stopped; the next `tulle upgrade` goes on from here", err=True)
            raise SystemExit(130) from None
        if as_json:
            restarted = [f"{each.namespace}/{each}" for each in outcome.restarted]
            print_json({**_json(outcome.found), "restarted": restarted})
        elif outcome.restarted:
            click.echo(f"{len(outcome.restarted)} workloads restarted; no workload of the stack has older proxies")


def remind(options: Mapping[str, Any]) -> None:
    """After a deployment: say how many workloads still run older proxies, if any do."""
    from components.cli.access import Access
    from components.deploy.errors import DeployError
    from components.upgrade.running import Upgrade

    # A project that is not the mesh's has no such settings, and a mesh that was just removed no proxies.
    with contextlib.suppress(DeployError):
        target, settings = _chosen(options)
        with contextlib.closing(Access(target)) as access:
            _, found = Upgrade(access, settings, None, lambda _: None).plan()
        if found.outdated:
            count, stack = len(found.outdated), options["stack"]
            click.echo(f"{count} workloads run older proxies: `tulle upgrade --stack {stack}` restarts them in waves")


def _chosen(options: Mapping[str, Any]) -> "tuple[Target, Settings]":
    from components.deploy import project, target
    from components.settings import parse
    from components.upgrade.settings import settings_of

    cwd: Path = options["cwd"]
    found = project.find(cwd.resolve())
    config = found.config(options["stack"], project.overrides(options["pairs"]))
    chosen = target.choose(options["stack"], config.values, options["context"], options["kubeconfig"], os.environ)
    return chosen, settings_of(parse(config.values, chosen))


def _show(planned: "list[Wave]", found: "Survey") -> None:
    for wave in planned:
        click.echo(f"~ {wave}")
    for each in found.left:
        click.echo(f"! {each.namespace}, {each.owner} keeps an older proxy: {each.reason}")
    if not planned:
        click.echo("no workload of the stack has older proxies")


def _json(found: "Survey") -> dict[str, Any]:
    return {
        "outdated": [f"{each.namespace}/{each}" for each in found.outdated],
        "left": [{"namespace": each.namespace, "owner": each.owner, "reason": each.reason} for each in found.left],
    }
