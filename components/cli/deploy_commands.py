"""`tulle up`, `preview`, `down`, `outputs`, `handover`: the same program as `pulumi up`, by the embedded deployer."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from components.deploy.deployment import Deployment
    from components.deploy.display import Display
    from components.deploy.steps import Tally

F = TypeVar("F", bound=Callable[..., Any])


def stack_options(command: F) -> F:
    """The options of every command about a stack."""
    for option in (
        click.option(
            "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print the result."
        ),
        click.option(
            "--cwd", type=click.Path(path_type=Path), default=Path(), help="Project folder (default: found from here)."
        ),
        click.option("--kubeconfig", default="", help="Kubeconfig file (stack local: that of the local cluster)."),
        click.option(
            "--context", default="", help="Context in it. Needed for every stack but local, unless its file names one."
        ),
        click.option(
            "-c",
            "--config",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override one config key; @FILE reads a file.",
        ),
        click.option(
            "-s", "--stack", required=True, help="Stack: local, dev, prod, or any with a Pulumi.<stack>.yaml."
        ),
    ):
        command = option(command)
    return command


@click.command()
@stack_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask before changing the cluster.")
@click.option("--adopt", is_flag=True, help="Take over objects that exist already but were not made by this stack.")
def up(yes: bool, adopt: bool, **options: Any) -> None:
    """Bring the cluster to what the program declares; prune what it no longer does."""

    def act(deployment: "Deployment", display: "Display", as_json: bool) -> dict[str, Any]:
        plan = deployment.plan()
        if not as_json and (plan.violations or not plan.quiet):
            display.plan(plan)
        _refuse(plan)
        if not plan.quiet:
            confirm(yes, "Apply these changes?")
        with display:
            result = deployment.up()
        if not as_json:
            display.summary(result.tally)
            display.outputs(result.outputs)
        return {**result.tally.as_json(), "outputs": dict(result.outputs)}

    _run(act, adopt=adopt, **options)
    if options["output"] == "text":
        from components.cli.upgrade import remind

        remind(options)


@click.command()
@stack_options
@click.option("--adopt", is_flag=True, help="Plan as `up --adopt` would act.")
def preview(adopt: bool, **options: Any) -> None:
    """Show what `up` would change, by server-side dry runs; change nothing."""

    def act(deployment: "Deployment", display: "Display", as_json: bool) -> dict[str, Any]:
        plan = deployment.plan()
        if not as_json:
            display.plan(plan)
            _refuse(plan)
        return plan.as_json()

    _run(act, adopt=adopt, **options)


@click.command()
@stack_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting.")
@click.option("--leave-injected", is_flag=True, help="Go on although pods of others still have the mesh's proxies.")
def down(yes: bool, leave_injected: bool, **options: Any) -> None:
    """Delete all that the stack made, but for what is protected.

    Refused while pods that the stack does not own have proxies: without a control plane they could not renew their
    certificates. Take them out of the mesh and restart them first.
    """

    def act(deployment: "Deployment", display: "Display", as_json: bool) -> dict[str, Any]:
        plan = deployment.plan_down()
        if not as_json:
            display.plan(plan)
        if not leave_injected:
            deployment.refuse_injected()
        if not plan.quiet:
            confirm(yes, "Delete these?")
        with display:
            result = deployment.down()
        if not as_json:
            display.summary(result.tally)
        return result.tally.as_json()

    _run(act, adopt=False, **options)


@click.command()
@stack_options
def outputs(**options: Any) -> None:
    """Print the outputs of the last `up`."""

    def act(deployment: "Deployment", display: "Display", as_json: bool) -> dict[str, Any]:
        values = dict(deployment.outputs())
        if not as_json:
            display.outputs(values)
        return values

    _run(act, adopt=False, **options)


@click.command()
@stack_options
@click.option("--to", "to", type=click.Choice(["cli", "embedded"]), required=True, help="Who deploys from now on.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before handing over.")
def handover(to: str, yes: bool, **options: Any) -> None:
    """Hand a deployed stack from this deployer to the Pulumi CLI, or back; no object changes and no pod restarts.

    To the CLI only when nothing is left to deploy; its next `pulumi up` takes the objects over as they are. Back from
    it, everything is adopted as `up --adopt` does; then make the CLI forget the stack, since `pulumi destroy` would
    delete it: `pulumi stack rm --force --preserve-config`.
    """
    name = options["stack"]

    def give(deployment: "Deployment", display: "Display", as_json: bool) -> dict[str, Any]:
        from components.deploy.errors import DeployError

        plan = deployment.plan()
        if not plan.quiet:
            if not as_json:
                display.plan(plan)
            raise DeployError(
                f"stack {name!r} is not as its program declares it, so it cannot be handed over",
                f"Deploy it first: tulle up --stack {name}",
            )
        confirm(yes, "Leave this stack to the Pulumi CLI?")
        count = deployment.release()
        if not as_json:
            click.echo(f"{count} objects are left as they are; `pulumi up --stack {name}` takes them over")
        return {"owner": "cli", "objects": count}

    def take(deployment: "Deployment", display: "Display", as_json: bool) -> dict[str, Any]:
        plan = deployment.plan()
        if not as_json:
            display.plan(plan)
        _refuse(plan)
        confirm(yes, "Take this stack over from the Pulumi CLI?")
        with display:
            result = deployment.up()
        if not as_json:
            display.summary(result.tally)
            click.echo(f"now let the CLI forget it: pulumi stack rm --force --preserve-config --stack {name}")
        return {"owner": "embedded", **result.tally.as_json()}

    _run(take if to == "embedded" else give, adopt=False, take=to == "embedded", **options)


def _run(
    act: "Callable[[Deployment, Display, bool], dict[str, Any]]",
    *,
    stack: str,
    pairs: tuple[str, ...],
    context: str,
    kubeconfig: str,
    cwd: Path,
    output: str,
    adopt: bool,
    take: bool = False,
) -> None:
    # Imported here: the SDK costs most of a second, which `tulle --help` and the other commands need not pay.
    from rich.console import Console

    from components.deploy import project, target
    from components.deploy.deployment import Deployment
    from components.deploy.display import Display
    from components.deploy.errors import DeployError

    as_json = output == "json"
    display = Display(Console(stderr=as_json, soft_wrap=True))
    deployment: Deployment | None = None
    try:
        found = project.find(cwd.resolve())
        config = found.config(stack, project.overrides(pairs))
        chosen = target.choose(stack, config.values, context, kubeconfig, os.environ)
        deployment = Deployment(found, stack, config, chosen, display, adopt, take)
        display.secrets = deployment.secrets
        answer = act(deployment, display, as_json)
        if as_json:
            click.echo(json.dumps(deployment.secrets.hide(answer), indent=2, sort_keys=True))
    except DeployError as error:
        raise click.ClickException(display.secrets.redact(str(error))) from error
    except KeyboardInterrupt:
        click.echo("stopped; what is applied is recorded, and the next `tulle up` goes on from here", err=True)
        raise SystemExit(130) from None
    finally:
        if deployment is not None:
            deployment.close()


def _refuse(plan: "Tally") -> None:
    from components.deploy import guarding

    guarding.refuse(plan.violations)


def confirm(yes: bool, question: str) -> None:
    """Ask, unless --yes was given; raises ClickException where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException("the cluster would change and nobody can be asked here\n  Pass --yes to go ahead.")
    click.confirm(question, abort=True)
