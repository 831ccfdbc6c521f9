"""Run the Pulumi program in this process against a monitor of ours, once per pass."""

import asyncio
import logging
import os
import runpy
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from google.protobuf import empty_pb2
from pulumi import RunError
from pulumi.runtime import mocks, settings, stack
from pulumi.runtime.config import set_all_config

from components.deploy.errors import DeployError
from components.deploy.monitor import Monitor, first_cause

WIDTH: Final = 64
"""Threads: one per resource that is being applied or waited for at the same time. A pool smaller than the longest queue
of waiting resources would leave none for the one they wait for.
"""


def run(
    main: Path,
    project: str,
    stack_name: str,
    config: Mapping[str, str],
    secret_keys: Iterable[str],
    monitor: Monitor,
    dry_run: bool,
) -> None:
    """Run `__main__.py` to its end; raises the first failure, with all threads of the program ended."""
    raised: list[BaseException] = []

    def body() -> None:
        loop = asyncio.new_event_loop()
        pool = ThreadPoolExecutor(WIDTH, thread_name_prefix="resource")
        loop.set_default_executor(pool)
        asyncio.set_event_loop(loop)
        # The SDK's tasks that are still pending after a failure would complain about it once more each.
        loop.set_exception_handler(lambda _loop, _context: None)
        try:
            set_all_config(dict(config), list(secret_keys))
            settings.configure(_settings(project, stack_name, monitor, dry_run))
            loop.run_until_complete(stack.run_in_stack(lambda: _main(main)))
        except BaseException as error:
            raised.append(error)
        finally:
            pool.shutdown(wait=True)
            loop.close()

    # The SDK keeps its root resource in a context variable: each pass gets a thread, and so a context, of its own.
    thread = threading.Thread(target=body, name="program")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        monitor.interrupt()
        thread.join()
        raise
    cause = first_cause([*monitor.failures, *raised])
    if isinstance(cause, RunError):
        raise DeployError(str(cause)) from cause
    if cause is not None:
        raise cause


def _main(main: Path) -> None:
    if not main.is_file():
        raise DeployError(f"there is no program at {main}", "Run inside the project, or point to it with --cwd.")
    root = str(main.parent)
    before = os.getcwd()
    if root not in sys.path:
        sys.path.insert(0, root)
    os.chdir(root)
    try:
        runpy.run_path(str(main), run_name="__main__")
    finally:
        os.chdir(before)


def _settings(project: str, stack_name: str, monitor: Monitor, dry_run: bool) -> settings.Settings:
    """Settings of this run alone: what the SDK waits for, locks and remembers is begun anew with each of them.

    A run before it may have failed with outputs still awaited, on a loop that is closed: nothing of that may be left.
    """
    logger = logging.getLogger("tulle.program")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    made = settings.Settings(
        project=project,
        stack=stack_name,
        monitor=monitor,
        engine=mocks.MockEngine(logger),
        dry_run=dry_run,
        organization="organization",
    )
    info = monitor.GetDeploymentInfo(empty_pb2.Empty())  # type: ignore[no-untyped-call]
    made.monitor_features = set(info.supportedFeatures)
    return made
