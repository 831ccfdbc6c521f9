"""Reads the report on nodes that a stack names. Does I/O; what it means is decided in `judging`."""

import datetime
from pathlib import Path

from components.args import MeshSettings
from components.forms import seconds
from components.nodes.judging import NodesError, judge, way_out
from components.requirements import node_requirements


def require_fit(settings: MeshSettings, stack: str, folder: Path) -> None:
    """Refuse to go on with nodes that are not known to be fit; a relative path is below `folder`. Does nothing where no
    report is named; raises NodesError.
    """
    path = settings["nodes"]["report"]
    if not path:
        return
    try:
        text = (folder / path).read_text()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise NodesError(
            f"nodes.report {path} cannot be read ({reason}): nobody has verified the nodes of stack {stack}",
            way_out(stack, path),
        ) from None
    longest = datetime.timedelta(seconds=seconds(settings["nodes"]["max_age"]))
    asked = node_requirements(settings)["hash"]
    judge(text, asked, stack, path, datetime.datetime.now(datetime.UTC), longest)
