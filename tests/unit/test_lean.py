"""What is kept out of a sidecar's memory, and that it is missed loudly."""

import subprocess
import sys

HEAVY = ("_ssl", "ast", "dis")


def told(code: str) -> str:
    """What a process says that begins as the sidecar does."""
    begun = f"import sys\nfrom proxy import lean\nlean.install()\n{code}"
    done = subprocess.run([sys.executable, "-c", begun], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_proxy_is_imported_without_them() -> None:
    assert told(f"import proxy.app\nprint([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_workers_are_imported_without_them() -> None:
    code = f"import proxy.workers.carrying\nprint([name for name in {HEAVY} if name in sys.modules])"
    assert told(code) == "[]"


def test_tls_of_the_loop_is_refused() -> None:
    code = "import ssl\ntry:\n    ssl.create_default_context()\nexcept RuntimeError as error:\n    print(error)"
    assert "use proxy.tls" in told(code)


def test_inspect_is_there_when_it_is_asked_for_more() -> None:
    code = "import inspect\nprint(inspect.signature(lambda a, b: None), inspect.iscoroutinefunction(print))"
    assert told(code) == "(a, b) False"
