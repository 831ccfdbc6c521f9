"""Made-up HTTP/2, whole and damaged, through a real proxy: what reaches the application is judged by h2 and hpack.

The law: the application is sent nothing that breaks a rule; each whole request it gets is one that the caller sent,
field for field and byte for byte, as a plain reading of the caller's frames finds it, and well-formed by h2's checks;
what is malformed is reset or answered with an error, and never passed on as whole.
"""

import os
import random
from collections.abc import Iterator
from typing import Any, Final

import hpack
import pytest
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived

from tests.conformance.passage import Passage, through
from tests.kit import frames
from tests.kit.frames import PREFACE, Code, Fields, Kind
from tests.kit.http2_ends import Answering
from tests.kit.topology import Mesh, Pod
from tests.wire import sections
from tests.wire.sections import Request

SEED = int(os.environ.get("TULLE_SEED") or random.randrange(1 << 32))
CASES = int(os.environ.get("TULLE_CASES") or 3000)
"""Over all ways and kinds: half of them damaged, a third over both proxies. HTTP/1 has as many of its own."""
MARK: Final = b"the end?"
HELLO: Final = PREFACE + frames.settings()
OWN: Final = (b"l5d-", b"host", b"via")
"""Fields that the proxy may add or drop."""


class Reader(Answering):
    """The application of one connection: reads with h2, answers every request, keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(b"ok")
        self.requests: list[Request] = []
        self.open: dict[int, Request] = {}
        self.is_over = False
        self.is_new = True

    def begin(self) -> None:
        """Forget the last case's requests."""
        self.requests, self.open = [], {}

    def receive(self, data: bytes) -> bytes:  # type: ignore[override]
        """Take bytes; the answers to what is whole."""
        super().receive(data)
        self.is_over = self.is_over or bool(self.fault)
        return self.take()

    def saw(self, event: Any) -> None:
        """One thing that came."""
        if isinstance(event, RequestReceived):
            request = Request([(bytes(name), bytes(value)) for name, value in event.headers])
            self.open[event.stream_id] = request
            self.requests.append(request)
        elif isinstance(event, DataReceived):
            self.open[event.stream_id].body += event.data
        elif isinstance(event, TrailersReceived):
            self.open[event.stream_id].trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, StreamEnded):
            self.open[event.stream_id].is_whole = True
        elif isinstance(event, StreamReset) and event.stream_id in self.open:
            self.open[event.stream_id].is_reset = True
        super().saw(event)


@pytest.fixture(scope="module", params=["inbound", "both"])
def passage(request: pytest.FixtureRequest, mesh: Mesh, client: Pod, outsider: Pod, web: Pod) -> Iterator[Passage]:
    """Through one proxy in plaintext, or through two with mutual TLS between them."""
    port = 18_400 if request.param == "inbound" else 18_401
    both = request.param == "both"
    address = mesh.service("differential-http2", 80, [web], target=port) if both else (web.ip, port)
    with through(web, port, client if both else outsider, address, Reader) as made:
        yield made


class Outcome:
    """What came back on a caller's connection."""

    def __init__(self, back: bytes) -> None:
        self.statuses: dict[int, int] = {}
        self.resets: dict[int, Code] = {}
        self.ended: set[int] = set()
        self.goaway: Code | None = None
        self.is_marked = False
        decoder = hpack.Decoder()
        for each in frames.split(back)[0]:
            if each.kind == Kind.HEADERS:
                status = dict(decoder.decode(each.payload, raw=True)).get(b":status")
                self.statuses[each.stream] = int(status or 0)
            elif each.kind == Kind.RST_STREAM:
                self.resets[each.stream] = Code(each.code)
                self.ended.add(each.stream)
            elif each.kind == Kind.GOAWAY and each.code:
                self.goaway = Code(each.code)
            elif each.kind == Kind.PING and each.flags & frames.ACK and each.payload == MARK:
                self.is_marked = True
            if each.kind in (Kind.HEADERS, Kind.DATA) and each.flags & frames.END_STREAM:
                self.ended.add(each.stream)


def kept(fields: Fields) -> list[tuple[bytes, bytes]]:
    """The fields that must arrive as they were sent, in any order among different names. h2 joins what a cookie was
    split into (RFC 9113 section 8.2.3)."""
    crumbs = [value for name, value in fields if name == b"cookie"]
    others = [(name, value) for name, value in fields if name != b"cookie" and not name.startswith(OWN)]
    return sorted([*others, *([(b"cookie", b"; ".join(crumbs))] if crumbs else [])])


def exchange(passage: Passage, data: bytes, read: dict[int, Request]) -> tuple[Outcome, list[Request]]:
    """Send it all; what came back, and what the application got."""
    wanted = {stream for stream, request in read.items() if request.is_whole and not request.is_reset}
    # Where a frame is cut short, what follows is taken for its rest.
    is_marked = any(each.kind == Kind.PING and each.payload == MARK for each in frames.split(data)[0])

    def enough(back: bytes) -> bool:
        seen = Outcome(back)
        return seen.goaway is not None or (seen.is_marked >= is_marked and wanted <= seen.ended)

    back = passage.exchange([HELLO, data], enough)
    got: list[Request] = []
    for application in passage.applications:
        assert isinstance(application, Reader)
        assert not application.fault, f"h2 does not take what was forwarded: {application.fault}"
        got += application.requests
    return Outcome(back), got


def is_same(sent: Request, got: Request) -> bool:
    """Whether what arrived is what was sent."""
    return kept(sent.fields) == kept(got.fields) and sent.body == got.body


def judge(passage: Passage, data: bytes, *, damaged: bool, earlier: list[Request]) -> int:
    """One case; how many requests were forwarded as whole. `earlier` is what the case before sent that has not arrived,
    and is replaced: a connection that was ended for a fault takes its requests along, but one that is on its way by
    then still arrives, and once; that it is cancelled may come after this case's end."""
    data += frames.ping(MARK)
    read = sections.read(data)
    seen, got = exchange(passage, data, read)
    say = f"TULLE_SEED={SEED}\nsent {data!r}\nread {read}\ngot {got}\nback {vars(seen)}"
    may = [each for each in read.values() if each.is_whole and not each.fault]
    left = list(may)
    for each in got:
        if not each.is_whole:
            continue
        match = [one for one in left if is_same(one, each)]
        late = [] if match else [one for one in earlier if is_same(one, each)]
        if late:
            earlier.remove(late[0])
            continue
        assert match, f"forwarded as whole, but nobody sent this: {each}\n{say}"
        assert sorted(match[0].trailers) == sorted(each.trailers), say
        left.remove(match[0])
    for stream, each in read.items():
        if each.is_whole and each.fault and not each.is_reset:
            refused = seen.goaway or seen.resets.get(stream) or seen.statuses.get(stream, 0) >= 400
            assert refused, f"malformed ({each.fault}), but nothing says so: stream {stream}\n{say}"
    earlier[:] = left
    if not damaged:
        assert not left, f"not forwarded: {left}\n{say}"
        assert seen.goaway is None and set(seen.statuses.values()) == {200}, say
    return len(may) - len(left)


@pytest.fixture
def share(request: pytest.FixtureRequest) -> int:
    """How many cases this way gets: two thirds through one proxy, a third through both; half damaged."""
    return CASES // (3 if request.node.callspec.params["passage"] == "inbound" else 6)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_what_is_forwarded_is_what_others_read(passage: Passage, damaged: bool, share: int) -> None:
    random_ = random.Random(SEED + damaged)
    print(f"TULLE_SEED={SEED} TULLE_CASES={CASES}")
    forwarded = 0
    earlier: list[Request] = []
    for _ in range(share):
        pieces = sections.conversation(random_)
        data = sections.damage(random_, pieces) if damaged else b"".join(pieces)
        forwarded += judge(passage, data, damaged=damaged, earlier=earlier)
    assert forwarded > share * (0.3 if damaged else 1), "hardly anything was forwarded to be judged"


GOOD: Final = frames.request(b"/x", b"POST", b"a.example")


def without(name: bytes) -> Fields:
    """A request that lacks one of its pseudo-fields."""
    return [each for each in GOOD if each[0] != name]


def instead(name: bytes, value: bytes) -> Fields:
    """A request with another value."""
    return [(each, value if each == name else old) for each, old in GOOD]


def plus(name: bytes, value: bytes) -> Fields:
    """A request with one more field."""
    return [*GOOD, (name, value)]


BYTES: Final = {"CR": b"\r", "LF": b"\n", "CRLF": b"\r\n", "NUL": b"\0", "DEL": b"\x7f", "space": b" "}
SMUGGLED: Final = b"x: y"
TABLE: Final[dict[str, Fields]] = {
    **{f"{name} in a name": plus(b"x" + byte + b"y", b"1") for name, byte in BYTES.items()},
    **{f"{name} in a value": plus(b"x", b"a" + BYTES[name] + SMUGGLED) for name in ("CR", "LF", "CRLF", "NUL")},
    **{f"{name} in :path": instead(b":path", b"/x" + byte + b"HTTP/1.1") for name, byte in BYTES.items()},
    **{f"{name} in :method": instead(b":method", b"GET" + byte + b"/") for name, byte in BYTES.items()},
    **{f"{name} in :authority": instead(b":authority", b"a" + byte + b"b") for name, byte in BYTES.items()},
    **{f"{name} in :scheme": instead(b":scheme", b"http" + byte) for name, byte in BYTES.items()},
    "space before a value": plus(b"x", b" a"),
    "space after a value": plus(b"x", b"a "),
    "tab before a value": plus(b"x", b"\ta"),
    "an empty name": plus(b"", b"1"),
    "a name in capitals": plus(b"X-Name", b"1"),
    "a colon in a name": plus(b"x:y", b"1"),
    "eight bits in a name": plus(b"x\xe9", b"1"),
    "connection": plus(b"connection", b"close"),
    "connection that names a field": [*plus(b"connection", b"x"), (b"x", b"1")],
    "keep-alive": plus(b"keep-alive", b"timeout=5"),
    "proxy-connection": plus(b"proxy-connection", b"close"),
    "transfer-encoding": plus(b"transfer-encoding", b"chunked"),
    "upgrade": plus(b"upgrade", b"h2c"),
    "te: gzip": plus(b"te", b"gzip"),
    "te: trailers, gzip": plus(b"te", b"trailers, gzip"),
    "two :path": [*GOOD, (b":path", b"/y")],
    "two :path at first": [GOOD[2], *GOOD],
    "two :method": [GOOD[0], *GOOD],
    "two :authority": [GOOD[3], *GOOD],
    "two :scheme": [GOOD[1], *GOOD],
    "a pseudo-field after a field": [(b"x", b"1"), *GOOD],
    ":status in a request": [(b":status", b"200"), *GOOD],
    "a pseudo-field of no known name": [(b":thing", b"1"), *GOOD],
    ":protocol without CONNECT": [(b":protocol", b"websocket"), *GOOD],
    "no :method": without(b":method"),
    "no :path": without(b":path"),
    "no :scheme": without(b":scheme"),
    "an empty :path": instead(b":path", b""),
    "an empty :method": instead(b":method", b""),
    "a :path without a slash": instead(b":path", b"x"),
    "an absolute :path": instead(b":path", b"http://b.example/x"),
    ":path * without OPTIONS": instead(b":path", b"*"),
    "CONNECT with a path": instead(b":method", b"CONNECT"),
    "CONNECT without an authority": [(b":method", b"CONNECT")],
    "Host unlike :authority": plus(b"host", b"b.example"),
    "two Hosts": [*plus(b"host", b"a.example"), (b"host", b"b.example")],
    "two Hosts without :authority": [*without(b":authority"), (b"host", b"a.example"), (b"host", b"b.example")],
    "content-length +1": plus(b"content-length", b"+1"),
    "content-length 1, 1": plus(b"content-length", b"1, 1"),
    "content-length of 2^64": plus(b"content-length", b"18446744073709551616"),
    "two content-lengths": [*plus(b"content-length", b"1"), (b"content-length", b"1")],
    "content-length too small": plus(b"content-length", b"0"),
    "content-length too large": plus(b"content-length", b"2"),
}  # fmt: skip


@pytest.mark.parametrize("encoded", [False, True], ids=["literal", "indexed"])
@pytest.mark.parametrize("fields", TABLE.values(), ids=TABLE)
def test_a_malformed_request_is_refused_and_never_forwarded(passage: Passage, fields: Fields, encoded: bool) -> None:
    if encoded:
        # Once into the table, then by a reference to it: what is refused is still decoded, for it counts for others.
        encoder = hpack.Encoder()
        block = bytes(encoder.encode(fields))
        data = b"".join(
            frames.headers(stream, block if stream == 1 else bytes(encoder.encode(fields)), end=False)
            + frames.data(stream, b"1", end=True)
            for stream in (1, 3)
        )
        good = bytes(encoder.encode(frames.request(b"/good")))
    else:
        data = frames.headers(1, frames.literal(fields), end=False) + frames.data(1, b"1", end=True)
        good = frames.literal(frames.request(b"/good"))
    data += frames.headers(5, good) + frames.ping(MARK)
    bad = {1, 3} if encoded else {1}
    seen, got = exchange(passage, data, {5: Request(frames.request(b"/good"), is_whole=True)})
    assert seen.goaway is None, f"the connection had to go, with streams that were good: {seen.goaway}"
    for stream in bad:
        refused = seen.resets.get(stream) == Code.PROTOCOL_ERROR or seen.statuses.get(stream) == 400
        assert refused, f"{seen.resets} {seen.statuses}"
    assert seen.statuses[5] == 200
    # A body is read after its head has gone on, so a fault in it cannot keep the head from the application.
    whole = [dict(each.fields)[b":path"] for each in got if each.is_whole]
    assert whole == [b"/good"], got
    if not any(name == b"content-length" for name, _ in fields):
        assert len(got) == 1, f"some of it was forwarded: {got}"


TRAILERS: Final = {
    "a pseudo-field": (b":path", b"/y"),
    "a name in capitals": (b"X-T", b"1"),
    "connection": (b"connection", b"close"),
    "LF in a value": (b"x-t", b"a\nb"),
}


@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
def test_malformed_trailers_never_end_a_request_well(passage: Passage, trailer: tuple[bytes, bytes]) -> None:
    data = (
        frames.headers(1, frames.literal(GOOD), end=False) + frames.data(1, b"1")
        + frames.headers(1, frames.literal([trailer])) + frames.ping(MARK)
    )  # fmt: skip
    seen, got = exchange(passage, data, {1: Request(GOOD, is_whole=True)})
    assert seen.resets.get(1) == Code.PROTOCOL_ERROR, vars(seen)
    assert not [each for each in got if each.is_whole], got
