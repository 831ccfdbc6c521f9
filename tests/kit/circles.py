"""The proxy with the garbage collector off, and a list of what only a collector would free:
`python -m tests.kit.circles FILE`.

What is freed by counting references is gone with its connection. What refers to itself in a circle waits for a
collector that counts objects, and one of them may hold fifty kilobytes of libssl's. The list is written to FILE a few
times a second, as JSON: type -> how many so far, types of the proxy's own only.
"""

import gc
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

WRITE_SECONDS: Final = 0.2
found: Counter[str] = Counter()


def look() -> None:
    """Find what has become unreachable since the last time, note it, and have it freed."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found.update(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("proxy."))
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()


def watch(path: Path) -> None:
    """Keep FILE up to date."""
    while True:
        look()
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(dict(found)))
        fresh.rename(path)
        time.sleep(WRITE_SECONDS)


def main() -> int:
    """Run the proxy until it ends."""
    from proxy.app import main as proxy

    gc.collect()
    gc.freeze()
    gc.disable()
    threading.Thread(target=watch, args=(Path(sys.argv[1]),), daemon=True).start()
    return proxy()


if __name__ == "__main__":
    sys.exit(main())
