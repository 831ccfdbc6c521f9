"""The process that accepts, where others carry: it starts them, replaces those that end, and is to the rest of the
proxy what `proxy.traffic` is where there is one process.

It owns what a proxy has once: listeners, identity (one key, handed on in messages that no disk sees), the admin port,
and the sum of all counters, in memory that a process which is killed leaves behind. Balancing, pools and discovery are
each worker's own.
"""

import asyncio
import itertools
import mmap
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from proxy.control.backoff import Backoff
from proxy.io.handing import Handing, Lane, Lanes
from proxy.io.reactor import Reactor
from proxy.settings import Settings
from proxy.telemetry import process
from proxy.telemetry.exposition import Family
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry
from proxy.telemetry.shared import MEMORY_BYTES, Contributor, Ledger
from proxy.tls.contexts import TLSContexts
from proxy.traffic import HOUSEKEEPING_SECONDS
from proxy.workers.channel import Channel, Message

PUBLISH_TIMEOUT: Final = 2.0
"""Seconds that a scrape waits for all workers to write their counters down; then it shows what they last wrote."""
STEADY_SECONDS: Final = 60.0
"""A worker that has lived so long is replaced at once when it ends; others ever more slowly."""
REPLACE_CAP: Final = 10.0
"""Seconds at most before a worker is replaced."""
EXIT_SECONDS: Final = 3.0
"""How long a worker may take to end when there is nothing left to do."""


class Life:
    """One process of one worker, from its start to its end."""

    def __init__(self, child: asyncio.subprocess.Process, channel: Channel, lane: Lane, memory: mmap.mmap) -> None:
        self.child = child
        self.channel = channel
        self.lane = lane
        self.contributor = Contributor(memory)
        self.left_out = 0
        self.is_taking = False
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Message | None]] = {}

    def ask(self, kind: str, **fields: object) -> "asyncio.Future[Message | None]":
        """A message that is answered; the answer is None when the process ends first."""
        number = next(self._numbers)
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self.channel.send({"kind": kind, "number": number, **fields})
        return future

    def answered(self, message: Message) -> None:
        """The answer to one question."""
        self._settle(self._asked.pop(message["number"]), message)

    def over(self) -> None:
        """Nobody will answer any more."""
        while self._asked:
            self._settle(self._asked.popitem()[1], None)

    @staticmethod
    def _settle(future: "asyncio.Future[Message | None]", answer: Message | None) -> None:
        if not future.done():
            future.set_result(answer)


class Member:
    """One worker: the same number through all its processes."""

    def __init__(self, workers: "Workers", number: int) -> None:
        self.workers = workers
        self.number = number
        self.life: Life | None = None
        self.ready = asyncio.Event()
        self.replaced = 0

    async def keep(self) -> None:
        """Have a process until told otherwise; a new one for each that ends."""
        backoff = Backoff(cap=REPLACE_CAP)
        while True:
            begun = time.monotonic()
            code: object
            try:
                code = await self._live()
            except OSError as error:
                code = error
            if self.workers.is_stopping:
                return
            if time.monotonic() - begun > STEADY_SECONDS:
                backoff.reset()
            delay = backoff.delay()
            self.replaced += 1
            self.workers.log.error(
                "worker ended; another takes its place", worker=self.number, code=code, seconds=round(delay, 2)
            )
            await asyncio.sleep(delay)

    async def _live(self) -> int:
        """One process, to its end; returns its exit code."""
        workers = self.workers
        memory_fd = os.memfd_create("tulle-counters", os.MFD_CLOEXEC)
        lane_end, its_lane = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel_end, its_channel = socket.socketpair()
        try:
            os.ftruncate(memory_fd, MEMORY_BYTES)
            memory = mmap.mmap(memory_fd, MEMORY_BYTES)
            given = (its_lane.fileno(), its_channel.fileno(), memory_fd)
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "proxy.workers",
                *map(str, given),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=given,
            )
        except BaseException:
            lane_end.close()
            channel_end.close()
            raise
        finally:
            its_lane.close()
            its_channel.close()
            os.close(memory_fd)
        life = Life(child, Channel(channel_end), Lane(memory, lane_end.fileno()), memory)
        workers.ledger.add(life.contributor)
        try:
            await life.channel.open()
            self.life = life  # who is told or asked something from here on hears it
            life.channel.send({"kind": "level", "level": workers.log.level})
            if workers.certificate is not None:
                life.channel.send(workers.certificate)
            while (message := await life.channel.receive()) is not None:
                self._told(life, message)
            async with asyncio.timeout(EXIT_SECONDS):
                await child.wait()
        except TimeoutError:
            pass  # it has stopped talking but not ended: no good can come of it
        finally:
            self.life = None
            workers.lanes.remove(life.lane)
            workers.ledger.remove(life.contributor, time.monotonic_ns())
            life.over()
            life.channel.close()
            lane_end.close()
            if child.returncode is None:
                child.kill()
            code = await child.wait()
        return code

    def _told(self, life: Life, message: Message) -> None:
        match message["kind"]:
            case "loaded":
                if not life.is_taking:
                    life.is_taking = True
                    self.workers.lanes.add(life.lane)
                    self.ready.set()
            case "series":
                self.workers.ledger.series(life.contributor, message)
            case "forgotten":
                self.workers.ledger.forgotten(life.contributor, message, time.monotonic_ns())
                life.channel.send({"kind": "freed", "number": message["number"]})
            case "answer":
                life.left_out = message.get("left_out", life.left_out)
                life.answered(message)


class Workers:
    """All of them. Has the members of `Traffic`, so that the rest of the proxy is the same for one process and many."""

    def __init__(self, settings: Settings, log: Log, reactor: Reactor, contexts: TLSContexts, count: int) -> None:
        self.settings = settings
        self.log = log
        self.registry = Registry()
        """Of what this process does itself: the admin port."""
        self.ledger = Ledger()
        self.lanes = Lanes(reactor)
        self.inbound = Handing(self.lanes, True)
        self.outbound = Handing(self.lanes, False)
        self.certificate: Message | None = None
        self.is_stopping = False
        self.members = [Member(self, number) for number in range(1, count + 1)]
        self._contexts = contexts
        self._keeping: list[asyncio.Task[None]] = []
        log.on_level = lambda level: self._tell({"kind": "level", "level": level})

    def _lives(self) -> list[Life]:
        return [member.life for member in self.members if member.life is not None]

    def _tell(self, message: Message) -> None:
        for life in self._lives():
            life.channel.send(message)

    # What Traffic has

    @property
    def is_ready(self) -> bool:
        """Whether every worker has once been able to take connections. It stays so: while one is replaced, the others
        serve."""
        return all(member.ready.is_set() for member in self.members)

    async def wait_ready(self) -> None:
        """Until that is so."""
        for member in self.members:
            await member.ready.wait()

    def load(self, chain_der: list[bytes], key_der: bytes, bundle_pem: bytes) -> None:
        """A new certificate for this process and for all workers; raises ValueError and changes nothing."""
        self._contexts.load(chain_der, key_der, bundle_pem)
        chain = [each.hex() for each in chain_der]
        self.certificate = {"kind": "certificate", "chain": chain, "key": key_der.hex(), "bundle": bundle_pem.hex()}
        self._tell(self.certificate)

    def processes(self) -> Sequence[int]:
        """The process ids of all workers."""
        return [life.child.pid for life in self._lives()]

    async def refresh(self) -> None:
        """Have all workers write their counters down; one that does not answer is shown as it last was."""
        asked = [life.ask("publish") for life in self._lives() if life.is_taking]
        if asked:
            await asyncio.wait(asked, timeout=PUBLISH_TIMEOUT)

    def families(self) -> Iterator[Family]:
        """The sum of all processes, and what is known of each worker."""
        yield from self.ledger.families(self.registry.families())
        lives = [(f'worker="{member.number}"', member.life) for member in self.members if member.life is not None]
        replaced = [(f'worker="{member.number}"', member.replaced) for member in self.members]
        uses = {text: process.use_of(life.child.pid) for text, life in lives}
        memory = [(text, use.resident_bytes) for text, use in uses.items() if use is not None]
        descriptors = [(text, use.descriptors) for text, use in uses.items() if use is not None]
        opened = [(text, life.lane.open) for text, life in lives]
        left_out = [(text, life.left_out) for text, life in lives]
        yield Family("tulle_worker_replaced_total", "counter", "Times that a worker ended and was replaced.", replaced)
        yield Family("tulle_worker_resident_memory_bytes", "gauge", "Resident memory of each worker.", memory)
        yield Family("tulle_worker_open_fds", "gauge", "Open file descriptors of each worker.", descriptors)
        yield Family("tulle_worker_open_connections", "gauge", "Connections that each worker has accepted.", opened)
        yield Family("tulle_worker_series_left_out", "gauge", "Series beyond the room for counters.", left_out)
        refused: list[tuple[tuple[tuple[str, str], ...], float]] = [((), self.lanes.refused)]
        yield Family("tulle_worker_refused_total", "counter", "Connections that no worker could take.", refused)

    async def run(self) -> None:
        """Keep the workers, and what they counted, for ever."""
        self._keeping = [asyncio.get_running_loop().create_task(member.keep()) for member in self.members]
        try:
            while True:
                await asyncio.sleep(HOUSEKEEPING_SECONDS)
                now, retain = time.monotonic_ns(), int(self.settings.metrics_retain_idle * 1e9)
                self.registry.drop_idle(now, retain)
                self.ledger.drop_idle(now, retain)
        finally:
            for task in self._keeping:
                task.cancel()
            await asyncio.gather(*self._keeping, return_exceptions=True)

    async def drain_inbound(self) -> bool:
        """As in Traffic, for all workers; none is replaced from here on."""
        self.is_stopping = True
        return await self._drain("inbound")

    async def drain_outbound(self) -> bool:
        """The same, for what the pod's own application has open."""
        return await self._drain("outbound")

    async def _drain(self, side: str) -> bool:
        asked = [life.ask("drain", side=side) for life in self._lives()]
        if not asked:
            return True
        # Each worker keeps the time itself; this is for one that is stuck.
        done, late = await asyncio.wait(asked, timeout=self.settings.shutdown_grace_period + EXIT_SECONDS)
        answers = [future.result() for future in done]
        return not late and all(answer is None or answer["done"] for answer in answers)

    async def close(self) -> None:
        """End all workers."""
        self.is_stopping = True
        self.lanes.close()
        self._tell({"kind": "exit"})
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=EXIT_SECONDS)
