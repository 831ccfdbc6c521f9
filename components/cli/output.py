"""How commands print: a table for people, JSON for programs. No command's figures are computed here."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(function: Command) -> Command:
    """The option `-o table|json`, which every command has."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="Form of output.",
    )(function)


def print_json(value: object) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> None:
    """Columns on standard output, aligned by spaces; those in `right` to the right."""
    table = [list(map(str, headings)), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(headings))]
    to_right = frozenset(right)
    for line in table:
        padded = (
            text.rjust(widths[index]) if index in to_right else text.ljust(widths[index])
            for index, text in enumerate(line)
        )
        click.echo("  ".join(padded).rstrip())


def cell(value: object) -> str:
    """A value in a table; nothing measured is a dash."""
    return "-" if value is None or value == "" else str(value)


def parse_seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """A length of time as options take it: a number of seconds, or `90s`, `5m`, `1h`."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)(s|m|h|)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a length of time such as 90s, 5m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def percent(share: float | None) -> str | None:
    """A share as a percentage; only a full one is called 100 %."""
    if share is None:
        return None
    text = f"{share * 100:.2f}%"
    return "99.99%" if text == "100.00%" and share < 1 else text


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(int(rest), size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts[:2]) or "0s")
