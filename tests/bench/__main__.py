"""The command: builds both sides, alternates rounds, prints a table, writes build/bench.json."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from typing import Any, Final

from tests.bench import measure
from tests.bench.bars import verdicts
from tests.bench.root import IMAGES, runtime
from tests.bench.scenarios import DIRECT, SCENARIOS, Figures, UnfitError
from tests.bench.sides import Envoy, Side, direct, envoy, tulle
from tests.kit.sidecar import ROOT
from tests.kit.topology import Mesh

OUTPUT: Final = ROOT / "build" / "bench.json"
VOID_P99_MS: Final = 1.0
"""A load that is slower than this without any proxy says nothing of proxies."""
WARM_UP_SECONDS: Final = 2.0


def missing(from_tree: bool) -> list[str]:
    """What has to be there first."""
    programs = ("wrk", "h2load", "curl", "nginx", "taskset", "ip", "nsenter", "setpriv")
    found = [name for name in programs if not shutil.which(name)]
    if os.geteuid() != 0:
        found.append("root (network namespaces)")
    if (os.cpu_count() or 1) < 2:
        found.append("a second core")
    if not from_tree and not IMAGES.exists():
        found.append("the images (`make images`; --tree measures the working tree instead)")
    return found


def run(name: str, sides: list[Side], rounds: int, seconds: float) -> dict[str, Any]:
    """One scenario: A B, B A, A B, ... so that what drifts meets both alike."""
    sides = [side for side in sides if side.name != "direct" or name in DIRECT]
    kept: dict[str, list[Figures]] = {side.name: [] for side in sides}
    for side in sides:
        SCENARIOS[name](side, min(seconds, WARM_UP_SECONDS))
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            figures = SCENARIOS[name](side, seconds)
            kept[side.name].append({key: round(value, 4) for key, value in figures.items()})
            print(f"  round {number + 1} {side.name:6}", show(figures), file=sys.stderr, flush=True)
    result: dict[str, Any] = {side: measure.medians(each) for side, each in kept.items()}
    if "envoy" in result and "tulle" in result:
        result["ratio"] = measure.ratios(result["tulle"], result["envoy"])
    result["rounds"] = kept
    return result


def show(figures: Figures) -> str:
    """Figures on a line."""
    return "  ".join(f"{name} {value:10.4g}" for name, value in figures.items())


def table(scenarios: dict[str, Any]) -> list[str]:
    """What is printed at the end."""
    lines = [f"{'scenario':20} {'figure':24} {'tulle':>10} {'envoy':>10} {'ratio':>7}  bar"]
    met = {(bar.scenario, bar.figure): (bar, is_met) for bar, _, is_met in verdicts(scenarios)}
    for name, result in scenarios.items():
        for figure, ours in result["tulle"].items():
            theirs = result.get("envoy", {}).get(figure, float("nan"))
            ratio = result.get("ratio", {}).get(figure, float("nan"))
            bar, is_met = met.get((name, figure), (None, True))
            verdict = "" if bar is None else f"{bar}: {'met' if is_met else 'MISSED'}"
            lines.append(f"{name:20} {figure:24} {ours:10.4g} {theirs:10.4g} {ratio:7.3f}  {verdict}")
        own = result.get("direct", {}).get("p99_ms", 0.0)
        if own > VOID_P99_MS:
            lines.append(f"{name:20} VOID: without any proxy p99 is {own:.3g} ms; the machine is too busy")
    return lines


def write(scenarios: dict[str, Any], about: dict[str, Any]) -> None:
    """Keep what there is so far: a run that is broken off has measured something, too."""
    OUTPUT.parent.mkdir(exist_ok=True)
    where = {**about, "kernel": platform.release(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    OUTPUT.write_text(json.dumps({"scenarios": scenarios, "run": where}, indent=1) + "\n")


def end(*_: object) -> None:
    """SIGTERM ends a run as SIGINT does: with what was made taken away."""
    raise KeyboardInterrupt


def main() -> int:
    """Exit code 0 when every bar is met, 1 when one is missed, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), default=None)
    parser.add_argument("--only", choices=("tulle", "envoy"), default=None, help="one side, for profiling")
    parser.add_argument("--tree", action="store_true", help="run the proxy from the working tree, not from the image")
    options = parser.parse_args()
    if lacking := missing(options.tree):
        print(f"bench needs {', '.join(lacking)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, end)
    scenarios: dict[str, Any] = {}
    unfit: list[str] = []
    children: list[subprocess.Popen[bytes]] = []
    envoys: list[Envoy] = []
    with runtime(options.tree) as source, Mesh() as mesh:
        try:
            sides = []
            if options.only != "envoy":
                sides.append(tulle(mesh, source, children))
            if options.only != "tulle":
                sides.append(envoy(mesh, children, envoys))
            if not options.only:
                sides.append(direct(mesh, children))
            print(f"proxy from the {source.description}; pids { {s.name: s.pids for s in sides} }", file=sys.stderr)
            for name in options.scenario or SCENARIOS:
                print(f"{name}: {SCENARIOS[name].__doc__}", file=sys.stderr, flush=True)
                try:
                    scenarios[name] = run(name, sides, options.rounds, options.seconds)
                except (UnfitError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                    unfit.append(name)
                    print(f"{name}: UNFIT: {error}", file=sys.stderr, flush=True)
                    continue
                if not options.only:
                    about = {"proxy": source.description, "seconds": options.seconds, "rounds": options.rounds}
                    write(scenarios, about)
        finally:
            for each in envoys:
                each.stop()
            for child in children:
                child.kill()
                child.wait()
    if options.only:
        return 0
    print(*table(scenarios), sep="\n")
    print(f"every round: {OUTPUT.relative_to(ROOT)}")
    if unfit:
        print(f"NOT MEASURED: {', '.join(unfit)}")
    return 0 if not unfit and all(is_met for _, _, is_met in verdicts(scenarios)) else 1


if __name__ == "__main__":
    sys.exit(main())
