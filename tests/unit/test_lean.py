"""What is kept out of a sidecar's memory, and that it is missed loudly."""

import subprocess
import sys

import pytest

HEAVY = ("_ssl", "ast", "dis", "string", "_locale", "asyncio.selector_events")


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


def test_what_the_loop_logs_is_seen() -> None:
    code = """
import asyncio, uvloop
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
sys.stderr = sys.stdout
print(type(sys.modules["logging"]).__name__)
uvloop.run(main())
import logging
print(logging.getLogger("asyncio").name, logging.WARNING, logging.Formatter.__name__)
"""
    first, *shown, last = told(code).splitlines()
    assert first == "DeferredLogging"
    assert "Exception in callback" in shown[0]
    assert "ZeroDivisionError: division by zero" in shown
    assert last == "asyncio 30 Formatter"


def test_a_child_process_is_run_by_the_loop() -> None:
    code = """
import asyncio, uvloop
async def main():
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(7)", stdout=asyncio.subprocess.PIPE)
    return (await child.communicate())[0]
print(uvloop.run(main()))
"""
    assert told(code) == r"b'7\n'"


@pytest.mark.parametrize(("module", "asked"), [("locale", "getencoding()"), ("textwrap", "dedent(' x')")])
def test_others_are_loaded_when_they_are_asked_for_anything(module: str, asked: str) -> None:
    assert told(f"import {module}\nprint(type({module}).__name__)\nprint({module}.{asked})").startswith("Deferred\n")


def test_inspect_is_there_when_it_is_asked_for_more() -> None:
    code = "import inspect\nprint(inspect.signature(lambda a, b: None), inspect.iscoroutinefunction(print))"
    assert told(code) == "(a, b) False"
