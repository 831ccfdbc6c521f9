"""`python3 -m proxy`: the sidecar."""

import gc
import sys

from proxy.app import main

if __name__ == "__main__":
    gc.freeze()
    sys.exit(main())
