"""`python3 -m proxy.redirect.cni`: the CNI plugin. Does what `plugin` has decided, and answers as the specification
says: a result or an error object on standard output, exit code 0 or 1.
"""

import json
import os
import sys
from collections.abc import Mapping

from proxy.redirect import apply, netns, plugin


def answer(environ: Mapping[str, str], text: bytes) -> tuple[int, plugin.Json | None]:
    """Serve one call: exit code and what is printed."""
    version = plugin.VERSIONS[-1]
    try:
        version = plugin.version_of(plugin.parse(text))
        decision = plugin.decide(environ, text)
        if isinstance(decision, plugin.Redirect):
            redirect(decision)
        return 0, decision.output
    except plugin.PluginError as error:
        return 1, error.document(version)
    except Exception as error:  # A runtime that is told nothing shows nothing: whatever it is, the pod's Event has it.
        failure = plugin.PluginError(plugin.NOT_REDIRECTED, f"{type(error).__name__}: {error}")
        return 1, failure.document(version)


def redirect(decision: plugin.Redirect) -> None:
    """Set or check the rules of one pod, all of them or none; raises PluginError. The process is in the pod's network
    namespace afterwards.
    """
    try:
        netns.enter(decision.netns)
    except netns.NamespaceError as error:
        raise plugin.PluginError(plugin.NOT_REDIRECTED, str(error)) from error
    versions = sorted({*apply.versions(), *((6,) if decision.ipv6 else ())})
    try:
        for version in versions:
            if decision.check:
                apply.check(decision.redirection, decision.mode, version)
            else:
                apply.apply(decision.redirection, decision.mode, version, _quiet)
    except apply.RedirectError as error:
        left = "" if decision.check else _withdraw(versions)
        raise plugin.PluginError(
            plugin.NOT_REDIRECTED,
            f"this meshed pod's connections cannot be redirected to its proxy: {error}",
            left or "no rule is left behind; what the node lacks is said by the role tulle.mesh.node",
        ) from error


def _withdraw(versions: list[int]) -> str:
    """Take back what was set; in words what could not be."""
    failures = []
    for version in versions:
        try:
            apply.remove("auto", version, _quiet)
        except apply.RedirectError as error:
            failures.append(str(error))
    return f"and what was set could not be taken back: {'; '.join(failures)}" if failures else ""


def _quiet(_: str) -> None:
    """The runtime reads standard output as the result."""


if __name__ == "__main__":
    code, output = answer(os.environ, sys.stdin.buffer.read())
    if output is not None:
        print(json.dumps(output, separators=(",", ":")))
    sys.exit(code)
