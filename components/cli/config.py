"""`tulle config`: what can be set, what a stack sets, and what its settings ask of nodes. Speaks to no cluster."""

import difflib
import json
from pathlib import Path
from typing import Any

import click

from components.cli.output import output_option, print_json, print_table


@click.group()
def config() -> None:
    """What can be set, and what the settings ask of nodes."""


@config.command()
@click.argument("key", required=False)
@click.option("-s", "--stack", default="", help="Show what this stack sets, beside the defaults.")
@click.option(
    "--cwd", type=click.Path(path_type=Path), default=Path(), help="Project folder (default: found from here)."
)
@output_option
def explain(key: str | None, stack: str, cwd: Path, output: str) -> None:
    """Type, default, allowed values and a sentence for KEY, or for every key."""
    found = entries(cwd, stack)
    if key is not None:
        found = [_chosen(found, key)]
    if output == "json":
        print_json(found if key is None else found[0])
    elif key is not None:
        _show(found[0])
    else:
        headings = ["KEY", "TYPE", *(["VALUE"] if stack else ["DEFAULT"]), "MEANING"]
        rows = [[e["key"], e["type"], _short(e["value" if stack else "default"]), e["description"]] for e in found]
        print_table(headings, rows)


@config.command("node-requirements")
@click.option("-s", "--stack", required=True, help="Stack: local, dev, prod, or any with a Pulumi.<stack>.yaml.")
@click.option("-c", "--config", "pairs", multiple=True, metavar="KEY=VALUE", help="Override one config key.")
@click.option(
    "--cwd", type=click.Path(path_type=Path), default=Path(), help="Project folder (default: found from here)."
)
@output_option
def node_requirements(stack: str, pairs: tuple[str, ...], cwd: Path, output: str) -> None:
    """What the stack's settings ask of nodes and network: kernel features, ports, paths, clock."""
    from components import requirements
    from components.deploy import project
    from components.deploy.refs import Target
    from components.settings import parse

    given = project.find(cwd.resolve()).config(stack, project.overrides(pairs))
    found = requirements.node_requirements(parse(given.values, Target("", "")))
    if output == "json":
        print_json(found)
        return
    click.echo(f"Kubernetes: {found['kubernetes']['why']}")
    click.echo(f"Clocks: within {found['clock']['maxSkewSeconds']} s of each other; {found['clock']['why']}")
    click.echo(f"Paths on nodes: {', '.join(each['path'] for each in found['paths']) or 'none'}")
    pods = found["pods"]
    rights = f"capabilities {', '.join(pods['capabilities'])} for the init container"
    click.echo(
        f"Meshed pods: {rights if pods['capabilities'] else 'no capabilities'}; uid "
        f"{', '.join(map(str, pods['reservedUids']))} and ports {', '.join(map(str, pods['reservedPorts']))} are the "
        f"proxy's; it asks for {pods['cpuRequest']} CPU and {pods['memoryRequest']}, and has at most "
        f"{pods['memoryLimit']}\n"
    )
    print_table(["KERNEL FEATURE", "WHY"], [[each["feature"], each["why"]] for each in found["kernel"]])
    click.echo("")
    print_table(
        ["KERNEL SETTING", "AT LEAST", "WHY"],
        [[each["name"], each["minimum"], each["why"]] for each in found["settings"]],
    )
    click.echo("")
    print_table(
        ["TCP PORT", "FROM", "TO", "WHY"],
        [[each["port"], each["from"], each["to"], each["why"]] for each in found["ports"]],
    )


def entries(cwd: Path, stack: str) -> list[dict[str, Any]]:
    """Every key of the project with all that is known of it; a secret's value is never shown."""
    from components.deploy import project
    from components.forms import FORMS

    found = project.find(cwd.resolve())
    given = found.config(stack, {}).values if stack else {}
    listed = []
    for key, declared in found.schema.items():
        entry = {
            "key": key,
            "type": declared.get("type", "string"),
            "default": declared.get("default"),
            "allowed": FORMS[key].allowed if key in FORMS else "",
            "description": declared.get("description", ""),
            "secret": bool(declared.get("secret")),
        }
        if stack:
            text = given[f"{found.name}:{key}"]
            shown = text if entry["type"] == "string" else json.loads(text)
            entry["value"] = "[secret]" if entry["secret"] and text else shown
        listed.append(entry)
    return listed


def _chosen(found: list[dict[str, Any]], key: str) -> dict[str, Any]:
    from components.deploy.errors import DeployError

    short = key.removeprefix("tulle:")
    for entry in found:
        if entry["key"] == short:
            return entry
    close = difflib.get_close_matches(short, [entry["key"] for entry in found], n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise DeployError(f"unknown config key {short!r}", f"{hint}`tulle config explain` lists all keys.")


def _show(entry: dict[str, Any]) -> None:
    click.echo(f"{entry['key']} ({entry['type']}{', secret' if entry['secret'] else ''})")
    click.echo(f"  {entry['description']}")
    click.echo(f"  Allowed: {entry['allowed']}")
    click.echo(f"  Default: {json.dumps(entry['default'])}")
    if "value" in entry:
        click.echo(f"  In this stack: {json.dumps(entry['value'])}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    line = text.strip().splitlines()[0] if text.strip() else '""'
    return line if len(line) <= 40 else f"{line[:39]}…"
