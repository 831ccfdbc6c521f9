"""The proxy, with a list of every interpreted function it enters: `python -m tests.kit.profiled FILE`.

The list is written to FILE five times a second, as JSON: function -> how often. It is taken with `sys.monitoring`, or
with `sys.setprofile` before Python 3.12.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

WRITE_SECONDS: Final = 0.2
entered: Counter[str] = Counter()


def name(code: CodeType) -> str:
    """Where a function is, as people look for it."""
    return f"{Path(code.co_filename).stem}.{code.co_qualname}"


def watch() -> None:
    """Count from now on what the calling thread enters."""
    own = threading.get_ident()
    if sys.version_info >= (3, 12):
        monitoring = sys.monitoring

        def started(code: CodeType, _: int) -> None:
            if threading.get_ident() == own:
                entered[name(code)] += 1

        monitoring.use_tool_id(monitoring.PROFILER_ID, "tulle")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.PY_START, started)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.PY_START)
    else:

        def called(frame: FrameType, event: str, _: Any) -> None:
            if event == "call":
                entered[name(frame.f_code)] += 1

        sys.setprofile(called)


def write(path: Path) -> None:
    """Keep FILE up to date."""
    while True:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(dict(entered)))
        fresh.rename(path)
        time.sleep(WRITE_SECONDS)


def main() -> int:
    """Run the proxy until it ends."""
    from proxy.app import main as proxy

    threading.Thread(target=write, args=(Path(sys.argv[1]),), daemon=True).start()
    watch()
    return proxy()


if __name__ == "__main__":
    sys.exit(main())
