"""`python3 -m proxy`: the sidecar."""

import gc
import sys

from proxy import lean

lean.install()  # before anything imports asyncio

from proxy.app import main  # noqa: E402

if __name__ == "__main__":
    gc.freeze()
    sys.exit(main())
