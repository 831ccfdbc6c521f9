"""Whether what the API server says of this node's containers is so: the comparison, and the questions it takes.

What the API server holds is what a kubelet wrote last. When a kubelet starts again it may be minutes until it writes
anew, and until then a container that ended long ago is said to run and be ready.
"""

import json
import subprocess
from typing import Any

from settings import Settings

# A question that takes longer than this is asked again.
QUESTION_SECONDS = 10.0
FINAL_PHASES = ("Succeeded", "Failed")
STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


def disagreements(said: list[dict[str, Any]], known: set[str], running: set[str]) -> list[str]:
    """What is said of pods and is not so: pods that the kubelet has not taken up, containers that do not run.

    `said` are the node's pods as the API server has them, `known` the uids of the kubelet's own, `running` the ids of
    the runtime's running tasks.
    """
    found = []
    for pod in said:
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        status = pod.get("status", {})
        if status.get("phase") in FINAL_PHASES:
            continue
        if pod["metadata"]["uid"] not in known:
            found.append(f"pod {name}: the kubelet has not taken it up")
            continue
        for entry in (one for key in STATUSES for one in status.get(key) or []):
            if "running" in entry.get("state", {}) and entry["containerID"].rpartition("/")[2] not in running:
                found.append(f"pod {name}: container {entry['name']} is said to run and does not")
    return found


def look(settings: Settings) -> list[str]:
    """The disagreements of now; a question that gets no answer is one."""
    try:
        said = json.loads(ask(*settings.kubectl, "get", "--raw", pods_of(settings.node)))["items"]
        known = json.loads(ask(*settings.kubectl, "get", "--raw", f"/api/v1/nodes/{settings.node}/proxy/pods"))["items"]
        # Last, so that what has just been started is in it.
        tasks = ask(*settings.ctr, "tasks", "ls")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [getattr(error, "stderr", "").strip() or str(error)]
    return disagreements(said, {pod["metadata"]["uid"] for pod in known or []}, running_tasks(tasks))


def pods_of(node: str) -> str:
    return f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"


def running_tasks(listed: str) -> set[str]:
    """The ids in `ctr tasks ls`: a line each, of id, process and state."""
    rows = [line.split() for line in listed.splitlines()]
    return {row[0] for row in rows if len(row) == 3 and row[2] == "RUNNING"}


def ask(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=QUESTION_SECONDS)
    return done.stdout
