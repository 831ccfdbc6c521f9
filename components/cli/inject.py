"""`tulle inject` and `tulle uninject`: YAML from files or standard input, changed YAML on standard output, the summary
on standard error.

What is changed is decided in `documents` and in the injector's own pure functions.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.cli import documents
from components.cli.options import Globals, mesh_options
from components.cli.output import print_json
from proxy.api import labels

if TYPE_CHECKING:
    from components.injector.config import InjectorConfig

CONFIG_KEY = "config.json"
"""Key of the injector's ConfigMap, and what `--config` reads from a file."""

INPUTS = click.argument("files", nargs=-1, type=click.Path(dir_okay=False, allow_dash=True))
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="yaml: the changed stream; json: what was done with each object, and no stream.",
)


@click.command()
@INPUTS
@click.option("--manual", is_flag=True, help="Add the proxy itself, as the webhook would, instead of the annotation.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False),
    help=f"With --manual: the injector's {CONFIG_KEY}, instead of asking the cluster for it.",
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of objects that name none.")
@OUTPUT
@mesh_options
def inject(
    options: Globals, files: tuple[str, ...], manual: bool, config_file: str | None, namespace: str, output: str
) -> None:
    """Add workloads in YAML to the mesh.

    FILES default to standard input (-). Objects that are not workloads pass unchanged.
    """
    change = _manual_change(options, config_file, namespace) if manual else documents.annotate
    _run(files, change, output)


@click.command()
@INPUTS
@OUTPUT
def uninject(files: tuple[str, ...], output: str) -> None:
    """Take workloads in YAML out of the mesh: annotation, proxy and redirection.

    FILES default to standard input (-). Objects that are not workloads pass unchanged.
    """
    _run(files, documents.uninject, output)


def _run(files: tuple[str, ...], change: documents.Change, output: str) -> None:
    text = read_all(files or ("-",))
    try:
        result, outcomes = documents.rewrite(text, change)
    except documents.DocumentError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        print_json([{"object": o.what, "changed": o.document is not None, "message": o.message} for o in outcomes])
    else:
        click.echo(result, nl=False)
    for outcome in outcomes:
        click.echo(f"{outcome.what}: {outcome.message}", err=True)
    if any(outcome.failed for outcome in outcomes):
        raise click.exceptions.Exit(1)


def read_all(files: tuple[str, ...]) -> str:
    """The streams of all files as one; files are separated as documents are."""
    pieces: list[str] = []
    for name in files:
        try:
            piece = sys.stdin.read() if name == "-" else Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"{name} cannot be read: {error}") from error
        if piece and not piece.endswith("\n"):
            piece += "\n"
        pieces.append(piece if not pieces or piece.startswith("---") else f"---\n{piece}")
    return "".join(pieces)


def _manual_change(options: Globals, config_file: str | None, default_namespace: str) -> documents.Change:
    """The webhook's decision and patch, with what it would know of namespaces and of the API server's version."""
    from components.injector.config import ConfigError, decode_config
    from components.injector.decide import Namespace
    from components.revision.names import revision_of

    namespaces: dict[str, Any] = {}
    native = True
    if config_file is not None:
        raw = {"": Path(config_file).read_bytes()}
    else:
        from components.cli.access import Access
        from components.cli.target import find_target

        access = Access(find_target(options.kubeconfig, options.context))
        raw = injector_configs(access, options.mesh_namespace)
        native = supports_native(access.request("GET", "/version"))
        namespaces = {item["metadata"]["name"]: item["metadata"] for item in access.list("v1", "Namespace")}
    try:
        configs = {revision: decode_config(text) for revision, text in raw.items()}
    except ConfigError as error:
        raise click.ClickException(str(error)) from error

    def change(document: documents.Json) -> documents.Outcome:
        name = (document.get("metadata") or {}).get("namespace") or default_namespace
        metadata = namespaces.get(name, {})
        namespace = Namespace(name, metadata.get("annotations") or {}, metadata.get("labels") or {})
        return inject_manually(document, namespace, configs[revision_of({"metadata": metadata}, configs)], native)

    return change


def inject_manually(
    document: documents.Json, namespace: Any, config: "InjectorConfig", native_supported: bool
) -> documents.Outcome:
    """Decide about one object and patch its pod template. Calling this is asking for injection: no annotation is
    needed.
    """
    from components.injector.decide import Inject, Namespace, Refuse, decide

    what = documents.title(document)
    template = documents.template_of(document)
    if template is None:
        return documents.Outcome(what, "skipped: it has no pods")
    asked = Namespace(namespace.name, {labels.INJECT: "enabled", **namespace.annotations}, namespace.labels)
    owner = documents.owner_of(document)
    decision = decide(template, asked, config, native_supported=native_supported, owner=owner)
    if isinstance(decision, Inject):
        changed = documents.replace_template(document, decision.apply(template, config))
        notes = "".join(f"; note: {notice.message}" for notice in decision.notices)
        return documents.Outcome(what, f"injected{notes}", changed)
    if isinstance(decision, Refuse):
        return documents.Outcome(what, f"refused: {decision.message}", failed=True)
    return documents.Outcome(what, f"skipped: {decision.message}")


def injector_configs(access: Any, mesh_namespace: str) -> dict[str, bytes]:
    """The configurations that the cluster's injectors run with, by revision; the mesh's own is ''."""
    found = {
        str((item.get("metadata", {}).get("labels") or {}).get(labels.REVISION, "")): str(
            item["data"][CONFIG_KEY]
        ).encode()
        for item in access.list("v1", "ConfigMap", mesh_namespace)
        if CONFIG_KEY in (item.get("data") or {})
    }
    if "" not in found:
        raise click.ClickException(
            f"namespace {mesh_namespace} has no ConfigMap with key {CONFIG_KEY}: is the mesh installed? "
            "Without a cluster, give the file with --config"
        )
    return found


def supports_native(version: Any) -> bool:
    """Whether an API server knows native sidecars (Kubernetes 1.29)."""
    digits = "".join(character for character in str(version.get("minor", "0")) if character.isdigit())
    return (int(version.get("major", 0) or 0), int(digits or 0)) >= (1, 29)
