"""Started by Pulumi where another program uses the package (`pulumi package add`); see PulumiPlugin.yaml."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Pulumi starts this file by its path, from wherever it has unpacked the package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from components.package.host import serve

    serve()
