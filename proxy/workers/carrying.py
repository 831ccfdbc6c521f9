"""A process that carries traffic: it takes connections that the other one accepted, and does what it is told. The
composition root of a worker.

    lane (descriptors) -> Receiving -> inbound | outbound           channel: certificate, publish, level, drain, exit
    counters -> Publisher -> memory, labels to the channel
"""

import asyncio
import mmap
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Final

import uvloop

from proxy import settings as settings_module
from proxy.control.trust import TrustBundle
from proxy.io.handing import MEMORY_HEADER, Receiving, Slots, end_with_parent
from proxy.io.reactor import Reactor
from proxy.settings import Settings
from proxy.telemetry.log import Log
from proxy.telemetry.shared import MEMORY_BYTES, Publisher
from proxy.tls.contexts import TLSContexts
from proxy.traffic import Traffic
from proxy.workers.channel import Channel, Message

PUBLISH_SECONDS: Final = 1.0
"""How often counters are written down without being asked for: what a process that is killed counted since is lost."""
PUBLISH_SHARE: Final = 0.05
"""Of a CPU, at most, for that: with very many series it is done less often."""


class Worker:
    """One of several. `run` returns when it is told to end, or nobody is left to tell it."""

    def __init__(self, settings: Settings, log: Log, lane: int, channel: Channel, memory: mmap.mmap) -> None:
        self.log = log
        self.channel = channel
        self.reactor = Reactor(asyncio.get_running_loop())
        # A bundle of its own is never read: certificates come with the anchors that belong to them.
        bundle = TrustBundle(settings.trust_bundle_file, log)
        self.traffic = Traffic(settings, log, self.reactor, TLSContexts(settings.identity.dns_name), bundle)
        self.publisher = Publisher(memory, MEMORY_HEADER, channel.send)
        self.publishing = asyncio.Lock()
        self.receiving = Receiving(
            self.reactor, lane, Slots(memory), self.traffic.inbound, self.traffic.outbound, self.lost
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Do what is asked until the end."""
        await self.channel.open()
        self._start(self.publish_now_and_then())
        self._start(self.traffic.run())
        while (message := await self.channel.receive()) is not None:
            match message["kind"]:
                case "certificate":
                    self.load(message)
                case "publish":
                    self._start(self.published(message["number"]))
                case "freed":
                    self.publisher.freed(message["number"])
                case "level":
                    self.log.level = message["level"]
                case "drain":
                    self._start(self.drain(message["side"], message["number"]))
                case "exit":
                    break
        await self.traffic.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """What fails here is a fault of ours: this process ends, loudly, and is replaced."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.log.error("worker failed", why=repr(task.exception()))
            os._exit(1)

    def load(self, message: Message) -> None:
        """A new certificate for new connections; with the first, connections are taken."""
        chain = [bytes.fromhex(each) for each in message["chain"]]
        try:
            self.traffic.load(chain, bytes.fromhex(message["key"]), bytes.fromhex(message["bundle"]))
        except ValueError as error:
            self.log.error("a certificate that the accepting process took does not fit here", why=error)
            return
        self.receiving.start()
        self.channel.send({"kind": "loaded"})

    def lost(self) -> None:
        """The process is out of descriptors."""
        error = "descriptors exhausted"
        self.traffic.registry.event("inbound_tcp_errors_total", (("error", error), ("target_port", "")))
        self.log.limited(error, "a connection was lost", error=error)

    async def publish(self) -> None:
        """Write all counters down, letting traffic pass between batches."""
        async with self.publishing:
            self.receiving.say_open()
            for _ in self.publisher.publish(self.traffic.families()):
                await self.channel.sent()
                await asyncio.sleep(0)
            await self.channel.sent()

    async def published(self, number: int) -> None:
        """Answer who asked for it."""
        await self.publish()
        self.channel.send({"kind": "answer", "number": number, "left_out": self.publisher.left_out})

    async def publish_now_and_then(self) -> None:
        """Where nothing has happened since the last time, there is nothing to write."""
        loop = asyncio.get_running_loop()
        seen = -1
        while True:
            begun = loop.time()
            if self.reactor.now_ns != seen:
                seen = self.reactor.now_ns
                await self.publish()
            await asyncio.sleep(max(PUBLISH_SECONDS, (loop.time() - begun) / PUBLISH_SHARE))

    async def drain(self, side: str, number: int) -> None:
        """Let one side end, with what is still in the lane, and say whether it did in time."""
        self.receiving.take()
        drain = self.traffic.drain_inbound if side == "inbound" else self.traffic.drain_outbound
        self.channel.send({"kind": "answer", "number": number, "done": await drain()})


async def carry(settings: Settings, log: Log, lane: int, channel: int, memory: int) -> None:
    """Run one worker on the current loop."""
    mapped = mmap.mmap(memory, MEMORY_BYTES)
    os.close(memory)
    await Worker(settings, log, lane, Channel(socket.socket(fileno=channel)), mapped).run()


def main(arguments: list[str]) -> int:
    """Entry point: the same settings as those of the process that started this one."""
    end_with_parent()
    # Who ends this process is the one that started it, which first lets it finish.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        lane, channel, memory = map(int, arguments)
        settings = settings_module.read(os.environ)
    except ValueError as error:
        print(f"proxy.workers: {error}; this program is started by the proxy", file=sys.stderr)
        return settings_module.EXIT_BAD_SETTING
    log = Log(settings.log, settings.log_format)
    uvloop.run(carry(settings, log, lane, channel, memory))
    return 0
