"""Runs pieces of work again and again, another allocation failing each time: `python -m tests.fuzz.scarcity LIBRARY`.

For a process that has `scarcity.c` preloaded. Nothing but MemoryError may come of it.
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.wire import http2_events
from tests.fuzz import corpus
from tests.kit import compiled, frames
from tests.wire.shim import load, load_http2

MOST: Final = 2000
FIELDS: Final = frames.request(b"/" + b"a" * 3000, b"POST", b"web", *((b"x-%d" % n, b"v" * 90) for n in range(60)))
PIECES: Final = [b"%d" % n * 50 for n in range(60)]

_http1 = load()
_http2 = load_http2()
_buffer = compiled.load(Path(__file__).with_name("buffer_shim.pyx"), "proxy.stack.buffer")


def head_in_pieces() -> None:
    """A head and trailers that are put together out of pieces."""
    fields = b"".join(b"%b: %b\r\n" % field for field in FIELDS if field[0][0] != ord(":"))
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + fields + b"\r\n0\r\n" + fields + b"\r\n"
    events = _http1.read(True, [data[at : at + 500] for at in range(0, len(data), 500)])
    assert [event[0] for event in events] == ["head", "data", "trailers", "end"]


def served() -> None:
    """A server's session, and a section of many fields."""
    session = _http2.Recorder()
    session.read(frames.PREFACE + frames.settings() + frames.headers(1, frames.literal(FIELDS)))
    session.written()
    assert session.take_events() == [("section", 1, FIELDS, False, True)]


def asked() -> None:
    """A client's session and an answer."""
    session = http2_events.ClientSession()
    session.request(FIELDS, b"body" * 1000)
    session.data_to_send()
    session.receive_data(corpus.seeds("http2-client")["interim.txt"])
    assert session.take_events() == []


def kept() -> None:
    """Buffers and queues."""
    assert _buffer.buffered(PIECES) == b"".join(PIECES)
    for keeps in (False, True):
        assert _buffer.queued(PIECES, keeps, 7) == b"".join(PIECES)


def tried(library: ctypes.CDLL, work: Callable[[], None]) -> int:
    """How many allocations there are, each of which has failed once."""
    for count in range(MOST):
        library.fail_after(count)
        try:
            work()
        except MemoryError:
            continue
        finally:
            untouched = library.successes_left() >= 0
            library.fail_after(-1)
        # Where memory is only wished for, work goes on without it; it is over when no allocation was left to fail.
        if untouched:
            return count
    raise AssertionError(f"{work.__name__} allocates more than {MOST} times")


def main() -> None:
    """Print each piece of work and its allocations."""
    library = ctypes.CDLL(sys.argv[1])
    library.successes_left.restype, library.fail_after.argtypes = ctypes.c_long, [ctypes.c_long]
    for work in (head_in_pieces, served, asked, kept):
        work()
        print(work.__name__, tried(library, work))


if __name__ == "__main__":
    main()
