"""`tulle render`: the stack as YAML for `kubectl apply -f -`, in an order that never changes, with no secret in it."""

from pathlib import Path
from typing import Any, Final

import click

from proxy.api import labels

NOWHERE: Final = "render"
ISSUER: Final = (
    "# The issuer's key is not printed: make Secret {secret} in namespace {namespace} yourself before you apply this:\n"
    "#   kubectl -n {namespace} create secret tls {secret} --cert=issuer.crt --key=issuer.key\n"
)


@click.command()
@click.option("-s", "--stack", required=True, help="Stack: local, dev, prod, or any with a Pulumi.<stack>.yaml.")
@click.option("-c", "--config", "pairs", multiple=True, metavar="KEY=VALUE", help="Override one config key.")
@click.option(
    "--cwd", type=click.Path(path_type=Path), default=Path(), help="Project folder (default: found from here)."
)
def render(stack: str, pairs: tuple[str, ...], cwd: Path) -> None:
    """Print the stack's objects for `kubectl apply -f -`.

    Keys are made in the cluster, by a Job, where there are none yet. Whoever applies also removes what a later version
    no longer declares.
    """
    import yaml

    objects, brought = rendered(stack, pairs, cwd)
    if brought:
        click.echo(ISSUER.format(secret=labels.ISSUER_SECRET, namespace=brought), nl=False)
    click.echo(yaml.safe_dump_all(objects, sort_keys=False, width=10**6), nl=False)


def rendered(stack: str, pairs: tuple[str, ...], cwd: Path) -> tuple[list[dict[str, Any]], str]:
    """All objects in order; and where an issuer is brought, the namespace in which its Secret must be made."""
    from components.deploy import guarding, program, project, wire
    from components.deploy.monitor import Monitor
    from components.deploy.refs import Target
    from components.deploy.rendering import Renderer
    from components.deploy.target import CONTEXT_KEY, KUBECONFIG_KEY
    from components.settings import DEPLOYER, RENDER, parse

    found = project.find(cwd.resolve())
    config = found.config(stack, project.overrides(pairs))
    target = Target(NOWHERE, NOWHERE)
    values = {
        **config.values,
        CONTEXT_KEY: target.context,
        KUBECONFIG_KEY: target.kubeconfig,
        f"{found.name}:{DEPLOYER}": RENDER,
    }
    settings = parse(values, target)
    secrets = wire.Secrets()
    for key in config.secret_keys:
        secrets.add(config.values[key])
    renderer = Renderer()
    monitor = Monitor(found.name, stack, target, secrets, renderer)
    program.run(found.main, found.name, stack, values, config.secret_keys, monitor, dry_run=True)
    public = {key: value for key, value in config.values.items() if key not in config.secret_keys}
    broken = guarding.violations(found.root, stack, monitor.declared, public)
    guarding.refuse(broken)
    for violation in broken:
        click.echo(f"policy ({violation.level}) {violation}", err=True)
    late = [*settings["meshed_namespaces"], *(["demo", "demo-unmeshed"] if settings["demo"]["enabled"] else [])]
    # Nothing secret is declared; this holds it, should that ever change.
    objects = [dict(secrets.hide(manifest)) for manifest in renderer.complete(late)]
    brought = settings["names"]["mesh_namespace"] if settings["trust"]["issuer_certificate"] else ""
    return objects, brought
