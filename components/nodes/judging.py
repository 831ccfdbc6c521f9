"""Whether a report on nodes lets a stack come up: pure. The report's text, what is asked of nodes, and the time in; one
error with the way out, or nothing. Reading the file does not belong here.

The report is what the collection's filter `nodes_report` writes (`ansible/plugins/filter/nodes_report.py`).
"""

import datetime
import json
from collections.abc import Mapping
from typing import Any, Final

from components.deploy.errors import DeployError

SCHEMA: Final = 1
AHEAD: Final = datetime.timedelta(minutes=5)
"""A report from later than this was written by a clock that is wrong, or by hand."""
MOST_SHOWN: Final = 5
"""Nodes that an error names; where more have failed, the report itself is the better reading."""


class NodesError(DeployError):
    """The nodes are not known to be fit."""


def way_out(stack: str, path: str) -> str:
    """How a report comes to be."""
    return (
        f"Verify the nodes: ansible-playbook -i INVENTORY ansible/playbooks/verify.yml -e mesh_stack={stack} "
        f"-e mesh_report=$PWD/{path or 'build/nodes-report.json'}, where INVENTORY has them in a group `nodes`. "
        "Nodes that nobody may log in to cannot be verified: -c nodes.required=false -c nodes.report= goes without."
    )


def judge(
    text: str, asked: str, stack: str, path: str, now: datetime.datetime, longest: datetime.timedelta
) -> list[str]:
    """The names of the nodes, all of them fit; raises NodesError for a report that is none, is old, was judged by other
    requirements than `asked` (their hash), or says of a node that it is not fit.
    """
    found = _read(text, path, stack)
    written = found["time"]
    if written > now + AHEAD:
        raise NodesError(
            f"nodes.report {path} is from the future ({written:%Y-%m-%d %H:%M} UTC)",
            f"A clock is wrong: this machine's, or the one that verified. {way_out(stack, path)}",
        )
    if now - written > longest:
        old, most = (each.total_seconds() / 3600 for each in (now - written, longest))
        raise NodesError(
            f"nodes.report {path} is {old:.0f} h old, and nodes.maxAge lets {most:g} h pass",
            way_out(stack, path),
        )
    if found["requirements"] != asked:
        raise NodesError(
            f"nodes.report {path} was judged by other requirements than stack {stack} has now "
            f"({found['requirements'][:15] or 'none'}, not {asked[:15]})",
            way_out(stack, path),
        )
    unfit = {name: node for name, node in sorted(found["nodes"].items()) if node.get("ok") is not True}
    if unfit:
        shown = [f"{name}: {node.get('message') or 'not fit'}" for name, node in list(unfit.items())[:MOST_SHOWN]]
        if len(unfit) > MOST_SHOWN:
            shown.append(f"and {len(unfit) - MOST_SHOWN} more")
        raise NodesError(
            f"{len(unfit)} of {len(found['nodes'])} nodes are not fit for the mesh, so nothing is applied:\n  "
            + "\n  ".join(shown),
            f"Mend them (the playbook site mends most), or take them out of the inventory. {way_out(stack, path)}",
        )
    return sorted(found["nodes"])


def _read(text: str, path: str, stack: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
        whole = found["schema"] == SCHEMA and isinstance(found["requirements"], str) and found["nodes"]
        fits = whole and all(isinstance(node, dict) for node in found["nodes"].values())
        time = datetime.datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    except (ValueError, TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise NodesError(f"nodes.report {path} is no report on nodes that this version reads", way_out(stack, path))
    return {**found, "time": time}
