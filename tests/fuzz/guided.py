"""One target under libFuzzer, in a process of its own: `python -m tests.fuzz.guided TARGET LIBRARY [OPTIONS]`.

Run by `make fuzz` in the tree of `tests/kit/instrumented.py`. LIBRARY is `coverage.c`, compiled, and is preloaded with
atheris's libFuzzer: the compiled modules call into both. What is Python is instrumented by atheris as it is imported.
"""

import ctypes
import importlib
import sys


def main() -> None:
    """Runs until libFuzzer ends the process."""
    name, library, *options = sys.argv[1:]
    atheris = importlib.import_module("atheris")
    ctypes.CDLL(library).coverage_start()
    with atheris.instrument_imports(include=["proxy"]):
        targets = importlib.import_module("tests.fuzz.targets")
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
