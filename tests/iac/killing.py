"""Deployments in processes of their own that are killed at a given boundary. Run as a program: `python -m
tests.iac.killing FOLDER`.

Everything is imported once and then forked, since starting Python with Pulumi costs more than the deployment itself;
and two programs cannot run in one process at the same time.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from components.deploy.cluster import Cluster
from proxy.api import labels
from tests.iac.tiny import Killer, Tiny, target, unique

AT_ONCE: Final = 3
"""Stacks that are tried at the same time."""
ALL: Final = 7
"""Objects of a complete stack, its namespace and inventory among them."""


def forked(action: Callable[[], Any]) -> tuple[int, Any]:
    """Run in a child: the signal that ended it (or 0), and what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(action()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a deployment failed; its traceback is above")
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), json.loads(text) if text else None


def killed(tiny: Tiny, verb: str, at: int) -> list[str]:
    """Where a deployment was killed; nothing if it came to its end before that boundary."""
    where = tiny.root / f"{verb}.killed"
    killer = Killer(at, where)
    signal, _ = forked(lambda: (tiny.up if verb == "up" else tiny.down)(killer).tally.as_json())
    found: list[str] = json.loads(where.read_text()) if signal == 9 else []
    return found


def try_boundary(root: Path, at: int) -> dict[str, Any]:
    """Kill an `up` at this boundary, finish it, look; then the same with `down`."""
    tiny = Tiny.create(root / str(at), unique())
    found: dict[str, Any] = {"problems": {}, "up": killed(tiny, "up", at)}
    forked(lambda: tiny.up().tally.as_json())
    api = Cluster(target())
    live = tiny.live(api)
    secrets = sorted(
        s["metadata"]["name"] for s in api.list("v1", "Secret", tiny.name) if s["type"] == "kubernetes.io/tls"
    )
    _, again = forked(lambda: tiny.up().tally.as_json())
    if len(live) != ALL:
        found["problems"]["after up"] = sorted(live)
    if secrets != [labels.ISSUER_SECRET, labels.ANCHOR_SECRET]:
        found["problems"]["secrets"] = secrets
    if again["summary"]["same"] != len(again["steps"]):
        found["problems"]["second up"] = again["summary"]
    found["down"] = killed(tiny, "down", at)
    forked(lambda: tiny.down().tally.as_json())
    if left := tiny.live(api):
        found["problems"]["after down"] = sorted(left)
    return found


def warm() -> None:
    """Import what every child would import again; the SDK's modules of one API group alone take half a second."""
    import pulumi_kubernetes as k8s

    from components.trust import resource, vault

    assert resource.__name__, vault.__name__
    assert k8s.core.v1.Namespace
    assert k8s.meta.v1.ObjectMetaArgs
    assert k8s.Provider


def main() -> None:
    """Boundary after boundary, until an `up` comes to its end; prints what was found as JSON."""
    root, results = Path(sys.argv[1]), []
    warm()
    while not results or results[-1]["up"]:
        begun = len(results) + 1
        workers = []
        for at in range(begun, begun + AT_ONCE):
            child = os.fork()
            if child == 0:
                try:
                    (root / f"{at}.json").write_text(json.dumps(try_boundary(root, at)))
                finally:
                    os._exit(0)
            workers.append((at, child))
        for at, child in workers:
            os.waitpid(child, 0)
            results.append(json.loads((root / f"{at}.json").read_text()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
