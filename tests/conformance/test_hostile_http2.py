"""Attacks in HTTP/2 on a meshed pod, by a caller who is outside the mesh; beside each, somebody calls the same
application over HTTP/2 and is served.
"""

import itertools
import select
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import pytest

from tests.kit import frames
from tests.kit.frames import Code, Kind, Setting, Talker, headers, literal
from tests.kit.hostile import MIB, RATE, Cause, withstand
from tests.kit.http2_ends import HTTP2Load
from tests.kit.origins import Nginx
from tests.kit.topology import Mesh, Pod

PORT: Final = 18_300
SILENT_PORT: Final = 18_301
BIG: Final = 8 * MIB
MANY: Final = 20_000
FLOOD_SECONDS: Final = 20.0
STALL_SECONDS: Final = 3
REQUEST: Final = literal(frames.request())
POST: Final = literal(frames.request(b"/", b"POST"))
CALM: Final = "GOAWAY ENHANCE_YOUR_CALM"


@pytest.fixture(scope="module")
def victim(mesh: Mesh) -> Iterator[Pod]:
    """A pod with nginx as its application, over HTTP/2, and a large file."""
    pod = mesh.pod("besieged", STALL_TIMEOUT=f"{STALL_SECONDS}s")
    with Nginx(pod, PORT, http2=True):
        with (pod.folder / "files" / "big").open("wb") as file:
            file.truncate(BIG)
        yield pod


@pytest.fixture
def good(outsider: Pod, victim: Pod) -> Callable[[], HTTP2Load]:
    """Makes callers of the application that is attacked."""
    return lambda: HTTP2Load(outsider, (victim.ip, PORT), clients=1, pause=1 / RATE)


@pytest.fixture
def attacker(outsider: Pod, victim: Pod) -> Iterator[Talker]:
    """A connection that has said hello, and answers nothing of its own accord."""
    with Talker(outsider.connect((victim.ip, PORT)), is_client=True, manners=False).open() as talker:
        yield talker.begun()


def ended(error: str) -> Cause:
    """The cause of a connection's end."""
    return Cause.of("inbound_tcp_errors_total", error=error, target_port=str(PORT))


def refused(error: str, port: int = PORT) -> Cause:
    """The cause of an answer or a reset of ours."""
    return Cause.of("inbound_http_errors_total", error=error, target_port=str(port))


def flood(attacker: Talker, pieces: Iterable[bytes], *, reads: bool = True) -> str:
    """Send as fast as it is taken, reading all the while or only at the end; returns how the connection ended."""
    connection, source = attacker.socket, iter(pieces)
    waiting, is_over = b"", False
    deadline = time.monotonic() + FLOOD_SECONDS
    connection.setblocking(False)
    while not is_over and time.monotonic() < deadline:
        if not waiting:
            waiting = b"".join(itertools.islice(source, 2000))
            if not waiting:
                break
        readable, writable, _ = select.select([connection] if reads else [], [connection], [], 1.0)
        try:
            if readable:
                chunk = connection.recv(262_144)
                attacker.held += chunk
                is_over = not chunk or goes_away(attacker)
            elif writable:
                waiting = waiting[connection.send(waiting) :]
            else:
                is_over = True  # nothing more is taken
        except OSError:
            is_over = True
    connection.setblocking(True)
    return attacker.fate(seconds=FLOOD_SECONDS)


def goes_away(attacker: Talker) -> bool:
    """Whether what has come so far holds a GOAWAY with an error; everything before it is dropped."""
    found, attacker.held = frames.split(attacker.held)
    for each in found:
        if each.kind == Kind.GOAWAY and each.code:
            attacker.held = frames.goaway(0, each.code) + attacker.held
            return True
    return False


def streams(*parts: Callable[[int], bytes], count: int = MANY) -> Iterator[bytes]:
    """The same on one stream after another."""
    return (b"".join(part(stream) for part in parts) for stream in range(1, 2 * count, 2))


def opened(block: bytes = POST, *, end: bool = False) -> Callable[[int], bytes]:
    """A request's head."""
    return lambda stream: headers(stream, block, end=end)


LONG: Final = literal(frames.request(b"/", b"POST", b"web", (b"content-length", b"4")))
CAPITALS: Final = literal(frames.request(b"/", b"GET", b"web", (b"X-Name", b"1")))

RESETS: Final[dict[str, tuple[str, str, Callable[[], Iterator[bytes]]]]] = {
    "rapid reset": (CALM, "reset flood", lambda: streams(opened(), frames.reset)),
    "made to reset, a window beyond 2^31": (
        CALM, "reset flood", lambda: streams(opened(), lambda s: frames.window_update(s, 0x7FFF_FFFF)),
    ),
    "made to reset, more than content-length": (
        CALM, "reset flood", lambda: streams(opened(LONG), lambda s: frames.data(s, b"12345", end=True)),
    ),
    "made to reset, a name in capitals": (CALM, "reset flood", lambda: streams(opened(CAPITALS, end=True))),
    "made to reset, trailers that do not end": (
        CALM, "reset flood", lambda: streams(opened(), lambda s: headers(s, literal([(b"x", b"y")]), end=False)),
    ),
    "DATA after a reset": (
        "GOAWAY STREAM_CLOSED", "protocol error",
        lambda: streams(opened(), frames.reset, lambda s: frames.data(s, b"x")),
    ),
    "an increment of 0": (
        "GOAWAY PROTOCOL_ERROR", "protocol error", lambda: streams(opened(), lambda s: frames.window_update(s, 0)),
    ),
    "DATA after the end": (
        "GOAWAY STREAM_CLOSED", "protocol error", lambda: streams(opened(end=True), lambda s: frames.data(s, b"x")),
    ),
    "PRIORITY of four bytes": (
        "GOAWAY FRAME_SIZE_ERROR", "protocol error",
        lambda: streams(opened(), lambda s: frames.frame(Kind.PRIORITY, 0, s, bytes(4))),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "error", "pieces"), RESETS.values(), ids=RESETS)
def test_resets(
    attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load], ending: str, error: str,
    pieces: Callable[[], Iterator[bytes]],
) -> None:  # fmt: skip
    before = victim.proxy.metric("request_total", direction="inbound", target_port=str(PORT))
    course = withstand(
        victim.proxy, good, lambda: flood(attacker, pieces()), ending={ending}, cause=ended(error)
    )  # fmt: skip
    print(course)
    passed_on = victim.proxy.metric("request_total", direction="inbound", target_port=str(PORT)) - before
    assert passed_on < MANY / 4 + course.answered, "the application had to bear it"


def endless(first: bytes, more: bytes) -> Callable[[], Iterator[bytes]]:
    """A header section without an end."""
    return lambda: itertools.chain(
        [headers(1, REQUEST + first, whole=False)], itertools.repeat(frames.continuation(1, more, whole=False), MANY)
    )


HUFFMAN: Final = b"\x10\x01x\xff\x91\x02" + bytes(400)
"""A field whose value is Huffman code for 640 times the shortest letter."""
SECTIONS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "CONTINUATION of nothing": endless(b"", b""),
    "CONTINUATION of one byte": endless(b"\x10\x01x\x7f\xa1\x9b\x01", b"x"),
    "CONTINUATION of 16 KiB": endless(b"", literal([(b"x", b"x" * 400)]) * 39),
    "CONTINUATION of Huffman code": endless(b"", HUFFMAN * 40),
}


@pytest.mark.parametrize("pieces", SECTIONS.values(), ids=SECTIONS)
def test_sections_without_end(
    attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load], pieces: Callable[[], Iterator[bytes]]
) -> None:
    print(withstand(
        victim.proxy, good, lambda: flood(attacker, pieces()), ending={CALM}, cause=ended("continuation flood")
    ))  # fmt: skip


def bomb(seed: tuple[bytes, bytes], times: int) -> Iterator[bytes]:
    """A field put into the table once, and referred to by one byte each time after."""
    name, value = seed
    size = b"\x7f" + bytes(((len(value) - 127) % 128 + 128, (len(value) - 127) // 128)) if len(value) > 126 else (
        bytes((len(value),))
    )  # fmt: skip
    first = REQUEST + b"\x40" + bytes((len(name),)) + name + size + value
    yield headers(1, first)
    for stream in range(3, 2 * MANY, 2):
        block = REQUEST + b"\xbe" * times
        yield headers(stream, block[:16_384], whole=len(block) <= 16_384)
        for at in range(16_384, len(block), 16_384):
            yield frames.continuation(stream, block[at : at + 16_384], whole=at + 16_384 >= len(block))


BOMBS: Final = {
    "a large field, 32,000 times": ((b"x", b"v" * 3000), 32_000),
    "an empty field, 32,000 times": ((b"x", b""), 32_000),
    "crumbs of a cookie, 16,000 times": ((b"cookie", b"a=b"), 16_000),
}


@pytest.mark.parametrize(("seed", "times"), BOMBS.values(), ids=BOMBS)
def test_header_bombs(
    attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load], seed: tuple[bytes, bytes], times: int
) -> None:
    attacker.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    course = withstand(
        victim.proxy, good, lambda: flood(attacker, bomb(seed, times)), ending={CALM}, cause=ended("header flood")
    )  # fmt: skip
    print(course)


@pytest.fixture
def unheard(outsider: Pod, victim: Pod) -> Iterator[Talker]:
    """A connection like `attacker`, for an application that accepts and says nothing."""
    with (
        victim.listen(SILENT_PORT),
        Talker(outsider.connect((victim.ip, SILENT_PORT)), is_client=True, manners=False).open() as talker,
    ):
        yield talker.begun()


def test_a_bomb_below_each_limit_is_bounded_too(unheard: Talker, victim: Pod, good: Callable[[], HTTP2Load]) -> None:
    """Sections that unfold to just what is allowed, on every stream, for an application that does not answer."""
    heads = list(itertools.islice(bomb((b"x", b"v" * 480), 100), 250))

    def attack() -> str:
        unheard.send(*heads)
        return unheard.head()[1][b":status"].decode()

    print(withstand(
        victim.proxy, good, attack, ending={"431"}, cause=refused("request headers too large together", SILENT_PORT)
    ))  # fmt: skip


def upload(piece: bytes) -> Callable[[], Iterator[bytes]]:
    """A request whose body is the same piece again and again."""
    return lambda: itertools.chain([headers(1, POST, end=False)], itertools.repeat(piece, MANY))


FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "PING": lambda: itertools.repeat(frames.ping(), MANY),
    "SETTINGS": lambda: itertools.repeat(frames.settings((Setting.MAX_CONCURRENT_STREAMS, 1)), MANY),
    "SETTINGS of nothing": lambda: itertools.repeat(frames.settings(), MANY),
    "PRIORITY": lambda: (
        frames.frame(Kind.PRIORITY, 0, stream, struct.pack(">IB", 0, 1)) for stream in range(1, 2 * MANY, 2)
    ),
    "empty DATA": upload(frames.data(1)),
    "padding": upload(frames.frame(Kind.DATA, frames.PADDED, 1, b"\x00")),
}


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "never reading"])
@pytest.mark.parametrize("pieces", FLOODS.values(), ids=FLOODS)
def test_floods(
    attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load], pieces: Callable[[], Iterator[bytes]], reads: bool
) -> None:
    course = withstand(
        victim.proxy, good, lambda: flood(attacker, pieces(), reads=reads), ending={CALM},
        cause=ended("control frame flood"),
    )  # fmt: skip
    print(course)


def test_more_settings_at_once_than_anybody_has(attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load]) -> None:
    many = frames.settings(*[(Setting.INITIAL_WINDOW_SIZE, 65_535)] * 2000)
    print(withstand(
        victim.proxy, good, lambda: flood(attacker, [many]), ending={CALM}, cause=ended("protocol error")
    ))  # fmt: skip


def test_ten_thousand_streams_half_open(attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load]) -> None:
    """A caller that has acknowledged the limit breaks a rule by going beyond it (RFC 9113 section 5.1.2)."""
    attacker.send(frames.settings_ack())
    print(withstand(
        victim.proxy, good, lambda: flood(attacker, streams(opened(), count=10_000)),
        ending={"GOAWAY PROTOCOL_ERROR"}, cause=ended("protocol error"),
    ))  # fmt: skip


# Windows


def big(stream: int) -> bytes:
    """A request of the large file."""
    return headers(stream, literal(frames.request(b"/files/big")))


def given_up(attacker: Talker, count: int, drip: bytes = b"") -> str:
    """Read until so many streams are reset; how the last one was. `drip` is sent now and then meanwhile."""
    left, last = count, "nothing"
    deadline = time.monotonic() + FLOOD_SECONDS
    while left and time.monotonic() < deadline:
        attacker.send(drip)
        try:
            found = attacker.read(0.2)
        except TimeoutError:
            continue
        if found is None:
            return "closed"
        if found.kind == Kind.RST_STREAM:
            left, last = left - 1, f"RST_STREAM {Code(found.code).name}"
    return last if not left else f"{left} streams are still open"


@pytest.mark.parametrize("drips", [False, True], ids=["for ever", "opened by a byte now and then"])
def test_a_window_of_zero(attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load], drips: bool) -> None:
    attacker.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 0)))

    def attack() -> str:
        begun = time.monotonic()
        attacker.send(big(1))
        ending = given_up(attacker, 1, frames.window_update(1, 1) if drips else b"")
        assert time.monotonic() - begun >= STALL_SECONDS
        return ending

    print(withstand(
        victim.proxy, good, attack, ending={"RST_STREAM ENHANCE_YOUR_CALM"}, cause=refused("stalled")
    ))  # fmt: skip
    assert attacker.is_alive(), "the connection itself has done no harm"


STREAMS: Final = 240
PRESSED_SECONDS: Final = 5.0
"""What a good request may wait for until the readers that stand in its way are given up."""


def test_windows_of_zero_on_all_streams(attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load]) -> None:
    """What is held for them would close the window of the connection to the application, which everybody shares."""
    attacker.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 0)))

    def attack() -> str:
        attacker.send(*[big(2 * n + 1) for n in range(STREAMS)])
        return given_up(attacker, STREAMS)

    print(withstand(
        victim.proxy, good, attack, ending={"RST_STREAM ENHANCE_YOUR_CALM"}, cause=refused("stalled"),
        patience=PRESSED_SECONDS,
    ))  # fmt: skip


def test_a_caller_that_reads_nothing_of_what_it_asked_for(
    attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load]
) -> None:
    attacker.send(frames.settings((Setting.INITIAL_WINDOW_SIZE, 0x7FFF_FFFF)), frames.window_update(0, 0x7FFF_0000))
    cause = refused("stalled")
    before = cause.count(victim.proxy)

    def attack() -> str:
        attacker.send(*[big(2 * n + 1) for n in range(STREAMS)])
        deadline = time.monotonic() + FLOOD_SECONDS
        while cause.count(victim.proxy) < before + STREAMS - 5 and time.monotonic() < deadline:
            time.sleep(0.1)
        return given_up(attacker, STREAMS - 5)

    print(withstand(
        victim.proxy, good, attack, ending={"RST_STREAM ENHANCE_YOUR_CALM"}, cause=cause, patience=PRESSED_SECONDS
    ))  # fmt: skip


OVERFLOWS: Final[dict[str, bytes]] = {
    "the connection's window beyond 2^31": frames.window_update(0, 0x7FFF_FFFF),
    "a setting beyond 2^31": frames.settings((Setting.INITIAL_WINDOW_SIZE, 0x8000_0000)),
    "a stream's window beyond 2^31 by a setting": (
        headers(1, POST, end=False) + frames.window_update(1, 0x7FFF_0000)
        + frames.settings((Setting.INITIAL_WINDOW_SIZE, 0x1_0000))
    ),
}


@pytest.mark.parametrize("pieces", OVERFLOWS.values(), ids=OVERFLOWS)
def test_windows_that_overflow(attacker: Talker, victim: Pod, good: Callable[[], HTTP2Load], pieces: bytes) -> None:
    print(withstand(
        victim.proxy, good, lambda: flood(attacker, [pieces]), ending={"GOAWAY FLOW_CONTROL_ERROR"},
        cause=ended("protocol error"),
    ))  # fmt: skip


def test_more_than_our_window(unheard: Talker, victim: Pod, good: Callable[[], HTTP2Load]) -> None:
    """What an application does not read is held up to one window, and beyond it nothing is taken."""

    def attack() -> str:
        unheard.send(headers(1, POST, end=False), frames.data(1, bytes(16_384)) * 300)
        return unheard.fate(1)

    print(withstand(
        victim.proxy, good, attack, ending={"RST_STREAM FLOW_CONTROL_ERROR"},
        cause=refused("flow control error", SILENT_PORT),
    ))  # fmt: skip
