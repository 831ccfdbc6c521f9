"""Deployments in processes of their own that are killed at a given boundary. Run as a program: `python -m
tests.iac.killing FOLDER`.

Everything is imported once and then forked, since starting Python with Pulumi costs more than the deployment itself;
and two programs cannot run in one process at the same time.
"""

import itertools
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

THINGS: Final = (
    "Namespace {0}",
    "TrustAnchor/anchor",
    "Issuer/issuer",
    "ConfigMap {0}/settings",
    "Secret {0}/password",
    "ConfigMap {0}/extra",
)
"""What the small project consists of, as the display calls it."""
UP: Final = tuple(itertools.product(THINGS, ("intended", "applied", "recorded")))
DOWN: Final = tuple(itertools.product(THINGS, ("deleting", "forgotten")))
AT_ONCE: Final = 6
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


def killed(tiny: Tiny, verb: str, boundary: tuple[str, str]) -> bool:
    """Whether a deployment came to this boundary and was killed there."""
    where = tiny.root / f"{verb}.killed"
    label, point = boundary
    killer = Killer(label.format(tiny.name), point, where)
    signal, _ = forked(lambda: (tiny.up if verb == "up" else tiny.down)(killer).tally.as_json())
    return signal == 9 and where.is_file()


def try_boundary(root: Path, number: int) -> dict[str, Any]:
    """Kill an `up` at a boundary, finish it, look; then the same with `down`."""
    tiny = Tiny.create(root / str(number), unique())
    found: dict[str, Any] = {"boundary": UP[number], "problems": {}}
    if not killed(tiny, "up", UP[number]):
        found["problems"]["up"] = "not killed"
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
    if number < len(DOWN) and not killed(tiny, "down", DOWN[number]):
        found["problems"]["down"] = f"not killed at {DOWN[number]}"
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
    """Boundary after boundary; prints what was found as JSON."""
    root, results = Path(sys.argv[1]), []
    warm()
    for batch in range(0, len(UP), AT_ONCE):
        workers = []
        for number in range(batch, min(batch + AT_ONCE, len(UP))):
            child = os.fork()
            if child == 0:
                try:
                    (root / f"{number}.json").write_text(json.dumps(try_boundary(root, number)))
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            workers.append((number, child))
        for number, child in workers:
            os.waitpid(child, 0)
            results.append(json.loads((root / f"{number}.json").read_text()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
