"""The command group: the list of subcommands. It imports nothing but click, so that `--help` is
quick.

A subcommand's work does not belong here, nor does anything that speaks to a cluster.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Final, cast

import click

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "up": ("components.cli.deploy_commands", "Bring the cluster to what the program declares."),
    "preview": ("components.cli.deploy_commands", "Show what `up` would change."),
    "down": ("components.cli.deploy_commands", "Remove what `up` made."),
    "upgrade": ("components.cli.upgrade", "Restart workloads with older proxies, wave by wave."),
    "outputs": ("components.cli.deploy_commands", "Print the stack's outputs."),
    "handover": ("components.cli.deploy_commands", "Hand the stack to the Pulumi CLI, or back."),
    "adopt-linkerd": ("components.cli.linkerd", "Plan the move of a Linkerd installation."),
    "render": ("components.cli.render", "Print the stack as YAML for kubectl apply."),
    "config": ("components.cli.config", "What can be set, and what the settings ask of nodes."),
    "check": ("components.cli.check", "Check the control plane, certificates, webhook and proxies."),
    "stat": ("components.cli.stat", "Success rate, requests/s, latency, mTLS share per workload."),
    "identity": ("components.cli.identity", "Identity and certificate expiry of meshed pods."),
    "external": ("components.cli.external", "Join tokens of machines outside the cluster."),
    "inject": ("components.cli.inject", "Add workloads in YAML to the mesh."),
    "uninject": ("components.cli.inject", "Take workloads in YAML out of the mesh."),
    "version": ("components.cli.version", "Versions of client, control plane and proxies."),
}
"""Name -> (module, sentence). A module's attribute of the command's name (with `_` for `-`) is the click command."""


class LazyGroup(click.Group):
    """A group that imports a subcommand only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_")))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; what its user can put right is shown as one error, without a traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from components.deploy.errors import DeployError

            if isinstance(error, DeployError):
                raise click.ClickException(str(error)) from error
            raise


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """Tulle, a light service mesh for Kubernetes."""


def main() -> None:
    """The entry point `tulle`."""
    cli(prog_name="tulle")


if __name__ == "__main__":
    main()
