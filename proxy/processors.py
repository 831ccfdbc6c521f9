"""How many CPUs there are, and how many workers the settings make of them. Starts nothing."""

import os
from math import ceil
from typing import Final

from proxy.settings import PREFIX, SettingError, Settings

CPU_MAX: Final = "/sys/fs/cgroup/cpu.max"
"""cgroup v2, as a container sees its own: microseconds of CPU time and of the period, or `max`."""


def workers(settings: Settings, allowed: int) -> int:
    """How many processes carry traffic where `allowed` CPUs may be used (Linkerd's rule).

    What is asked for by number must be there: SettingError otherwise. What is asked for as a bound follows the machine,
    so that one pod template fits small nodes and large ones.
    """
    if settings.cores > allowed:
        remedy = f"write 1 to {allowed}, the CPUs that this process may use, or set {PREFIX}CORES_MAX instead"
        raise SettingError(PREFIX + "CORES", str(settings.cores), remedy)
    wanted = settings.cores or settings.cores_max or round(allowed * settings.cores_max_ratio) or 1
    return max(1, min(max(wanted, settings.cores_min), allowed))


def allowed() -> int:
    """CPUs by affinity and by the quota of the cgroup; at least one."""
    affinity = len(os.sched_getaffinity(0))
    try:
        with open(CPU_MAX, encoding="ascii") as file:
            limit = quota(file.read())
    except OSError:
        limit = None
    return affinity if limit is None else min(affinity, limit)


def quota(text: str) -> int | None:
    """CPUs, begun ones counted whole, that a cpu.max allows; None for no limit."""
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):
        return None
    return ceil(int(words[0]) / int(words[1]))
