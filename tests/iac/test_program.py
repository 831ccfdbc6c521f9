"""The program's run in this process: what one run leaves behind must not reach the next."""

from pathlib import Path
from typing import Final

import pytest

from components.deploy import program, wire
from components.deploy.errors import DeployError
from components.deploy.monitor import Monitor
from components.deploy.refs import Target
from components.deploy.rendering import Renderer

FAILS: Final = """
import asyncio
import pulumi

loop = asyncio.get_event_loop()
asked = loop.create_future()


async def fail() -> None:
    asked.set_exception(pulumi.RunError("the answer is not to be had"))
    pulumi.Output.from_input(loop.create_future())


pulumi.Output.from_input(asked)
loop.call_later(0.1, lambda: loop.create_task(fail()))
"""
"""Its failure ends it while an output is still waited for, and so kept by the SDK."""

WORKS: Final = """
import pulumi

pulumi.export("color", pulumi.Output.from_input("red").apply(str.upper))
"""


class Outputs(Renderer):
    """Keeps the stack's outputs."""

    def finish(self, outputs: dict[str, object]) -> None:
        self.outputs = outputs


def run(folder: Path, text: str) -> dict[str, object]:
    main = folder / "__main__.py"
    main.write_text(text)
    handler, target = Outputs(), Target("nowhere", "nowhere")
    monitor = Monitor("again", "local", target, wire.Secrets(), handler)
    program.run(main, "again", "local", {}, (), monitor, dry_run=True)
    return handler.outputs


@pytest.mark.timeout(60)
def test_a_run_after_a_failed_one_knows_nothing_of_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DeployError, match="the answer is not to be had"):
            run(tmp_path, FAILS)
        assert run(tmp_path, WORKS) == {"color": "RED"}
