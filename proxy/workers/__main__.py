"""`python3 -m proxy.workers LANE CHANNEL MEMORY`: one process that carries traffic. Started by `accepting` alone, with
these descriptors."""

import gc
import sys

from proxy import lean

lean.install()  # before anything imports asyncio

from proxy.workers.carrying import main  # noqa: E402

if __name__ == "__main__":
    gc.freeze()
    sys.exit(main(sys.argv[1:]))
