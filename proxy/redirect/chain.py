"""`python3 -m proxy.redirect.chain`: names the plugin in a node's network configuration, or takes it out again. Files
are replaced whole; what stands in them is `conflist`'s.

`install` chains, and then sets the rules of pods that were started before the plugin was there: their validators wait
for them. `remove` takes the plugin out, `--check` only says what either would do. Prints one JSON object. Exit codes: 0
done, 1 not possible, 64 an argument that cannot be used.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proxy.api import labels
from proxy.redirect import conflist, plugin

CONF_DIR: Final = Path("/etc/cni/net.d")
BIN_DIR: Final = Path("/opt/cni/bin")
STATE_DIR: Final = Path("/var/lib/tulle/cni")
RESULTS_DIR: Final = Path("/var/lib/cni/results")
"""Where libcni keeps the result of each pod, which containerd and CRI-O call plugins through."""
CALL_SECONDS: Final = 120.0
FAILED: Final = 1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """A node's folders."""

    conf: Path = CONF_DIR
    plugins: Path = BIN_DIR
    originals: Path = STATE_DIR
    results: Path = RESULTS_DIR

    def original_of(self, name: str) -> Path:
        """Where a file is kept as it was before the plugin was named in it."""
        return self.originals / f"{name}.original"


def install(places: Places, *, check: bool) -> Json:
    """Name the plugin in the configuration that the runtime uses; raises ConflistError, OSError."""
    program = places.plugins / plugin.TYPE
    if not check and not os.access(program, os.X_OK):
        # A list that names a program that is not there stops every pod of the node.
        raise conflist.ConflistError(f"cannot name {program}, which is not there: run the role tulle.mesh.cni")
    name = conflist.in_use(_names(places.conf))
    if not name:
        return {"changed": False, "file": "", "message": f"{places.conf} has no network configuration yet"}
    path = places.conf / name
    text = path.read_bytes()
    wanted = conflist.chained(text)
    if wanted == text:
        return {"changed": False, "file": str(path), "message": "the plugin is in the list"}
    if not check:
        places.originals.mkdir(parents=True, exist_ok=True)
        _replace(places.original_of(name), conflist.unchained(text), path)
        _replace(path, wanted, path)
    return {"changed": True, "file": str(path), "message": "the plugin was added to the list"}


def remove(places: Places, *, check: bool) -> Json:
    """Take the plugin out of every configuration; raises ConflistError, OSError."""
    changed = []
    for name in _names(places.conf):
        path = places.conf / name
        text = path.read_bytes()
        if not name.endswith(conflist.EXTENSIONS) or plugin.TYPE.encode() not in text:
            continue
        original = places.original_of(name)
        wanted = conflist.restored(text, original.read_bytes() if original.is_file() else None)
        if wanted != text:
            changed.append(str(path))
            if not check:
                _replace(path, wanted, path)
    left = sorted(places.originals.glob("*.original")) if places.originals.is_dir() else []
    if not check:
        for each in left:
            each.unlink()
        for folder in (places.originals, places.originals.parent):
            # Of the latter other parts of the mesh may have something.
            with suppress(OSError):
                folder.rmdir()
    message = "the plugin was taken out of the list" if changed else "the plugin is in no list"
    return {"changed": bool(changed or left), "file": ", ".join(changed), "message": message}


def waiting(places: Places) -> Iterator[tuple[dict[str, str], bytes]]:
    """For each pod of this node that is to be redirected: a call of the plugin, as environment and configuration."""
    for name in _names(places.results):
        try:
            kept = json.loads((places.results / name).read_bytes())
            annotations = (kept.get("capabilityArgs") or {}).get(plugin.ANNOTATIONS) or {}
            # containerd sets up each pod's loopback as a network of its own, and keeps that result too.
            if labels.REDIRECT not in annotations or kept["ifName"] == "lo":
                continue
            result = kept["result"]
            network = json.loads(base64.b64decode(kept["config"]))
            netns = kept.get("netns") or next(each["sandbox"] for each in result["interfaces"] if each.get("sandbox"))
            environ = {"CNI_CONTAINERID": str(kept["containerId"]), "CNI_IFNAME": str(kept["ifName"])}
            config = {
                "cniVersion": str(network["cniVersion"]),
                "name": str(network["name"]),
                "type": plugin.TYPE,
                "runtimeConfig": {plugin.ANNOTATIONS: annotations},
                "prevResult": result,
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
            # Of another version of libcni, or gone meanwhile: such a pod has to be created anew.
            continue
        if os.path.exists(netns):
            yield {**environ, "CNI_NETNS": str(netns)}, json.dumps(config).encode()


def catch_up(places: Places, *, check: bool) -> Json:
    """Set the rules of pods that wait for them; raises OSError."""
    late, failed = [], []
    for environ, config in waiting(places):
        if not _call(places, "CHECK", environ, config):
            continue
        if not check and (complaint := _call(places, "ADD", environ, config)):
            # Unless the pod has ended meanwhile.
            failed += [complaint] if os.path.exists(environ["CNI_NETNS"]) else []
            continue
        late.append(environ["CNI_CONTAINERID"])
    return {"late": late, "failed": failed}


def _call(places: Places, command: str, environ: dict[str, str], config: bytes) -> str:
    """Call the plugin as the runtime does: empty if it was content, else what it said."""
    path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    given = {**environ, "CNI_COMMAND": command, "CNI_PATH": str(places.plugins), "PATH": path}
    program = [str(places.plugins / plugin.TYPE)]
    done = subprocess.run(
        program, input=config, capture_output=True, timeout=CALL_SECONDS, env=given, cwd="/", check=False
    )
    return "" if done.returncode == 0 else (done.stdout or done.stderr).decode(errors="replace").strip()


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_file()) if folder.is_dir() else []


def _replace(path: Path, text: bytes, like: Path) -> None:
    """Write a file whole or not at all, with another one's owner and mode."""
    status = like.stat()
    # In the same folder, and of no extension that a runtime reads.
    temporary = path.with_name(f".{path.name}.tulle-new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), status.st_mode & 0o7777)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    known = argparse.ArgumentParser(prog="proxy.redirect.chain", description="Name the plugin in a node's network.")
    known.add_argument("action", choices=("install", "remove"))
    known.add_argument("--check", action="store_true", help="change nothing, say what would be changed")
    known.add_argument("--conf-dir", type=Path, default=CONF_DIR, help="where the runtime finds the network's list")
    known.add_argument("--bin-dir", type=Path, default=BIN_DIR, help="where the runtime finds plugins")
    known.add_argument("--state-dir", type=Path, default=STATE_DIR, help="where originals are kept")
    known.add_argument("--results-dir", type=Path, default=RESULTS_DIR, help="where libcni keeps results")
    options = known.parse_args(arguments)
    places = Places(options.conf_dir, options.bin_dir, options.state_dir, options.results_dir)
    try:
        if options.action == "remove":
            report = remove(places, check=options.check)
        else:
            report = install(places, check=options.check)
            report |= catch_up(places, check=options.check)
            report["changed"] = report["changed"] or bool(report["late"])
    except conflist.ConflistError as error:
        name = conflist.in_use(_names(places.conf))
        report = {"changed": False, "file": str(places.conf / name), "message": f"{places.conf / name} {error}"}
    except OSError as error:
        report = {"changed": False, "file": str(error.filename or ""), "message": str(error)}
    else:
        print(json.dumps(report))
        return FAILED if report.get("failed") else 0
    print(json.dumps(report))
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
