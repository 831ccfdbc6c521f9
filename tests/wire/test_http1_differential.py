"""Our HTTP/1 codec beside h11 and llhttp, on made-up messages, whole and damaged, cut anywhere.

The law is about what we let through: a message that we take must be read by the others in the same way (RFC 9112
section 11.2: a difference is how requests are smuggled). What we refuse may be fine for others; but no well-formed
message is refused.
"""

import itertools
import os
import random
from collections.abc import Callable

import pytest

from tests.wire.oracles import Message, Rejected, by_h11, by_llhttp, ours

SEED = int(os.environ.get("TULLE_SEED") or random.randrange(1 << 32))
ROUNDS = int(os.environ.get("TULLE_ROUNDS") or 3000)

METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"HEAD")
TARGETS = (b"/", b"/a?b=c&d=%20", b"/x/../y", b"http://a.example/p?q", b"*", b"/~!$&'()+,;=:@")
NAMES = (b"X-A", b"x-b", b"Accept", b"Cookie", b"A.b_c~d", b"Content-Type", b"Via", b"Content-Lengths", b"Hosts", b"TE")
VALUES = (
    b"",
    b"1",
    b"a, b",
    b"  padded\t",
    b"\xe9t\xe9",
    b'"quo\\"ted"',
    b"a\tb",
    b"x" * 300,
    b"chunked",
    b"close-not",
)
DAMAGE = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\x7f",
    b"-",
    b"+",
    b"0",
    b"1",
    b"g",
    b"\xff",
)


def fields(random_: random.Random) -> list[bytes]:
    return [
        random_.choice(NAMES) + b":" + random_.choice((b"", b" ", b"\t ")) + random_.choice(VALUES)
        for _ in range(random_.randrange(5))
    ]


def chunked(random_: random.Random, body: bytes) -> bytes:
    """A body in chunks, with an extension or a trailer now and then."""
    out = b""
    while body:
        size = random_.randint(1, len(body))
        spelled = b"%x" % size if random_.random() < 0.5 else b"%X" % size
        out += random_.choice((b"", b"0", b"00")) + spelled
        out += random_.choice((b"", b"", b";a=b", b';n="v"')) + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailers = b"".join(b"X-T%d: v\r\n" % n for n in range(random_.choice((0, 0, 1, 2))))
    return out + b"0\r\n" + trailers + b"\r\n"


def request(random_: random.Random) -> bytes:
    """A well-formed request."""
    method = random_.choice(METHODS)
    lines = [method + b" " + random_.choice(TARGETS) + b" HTTP/1.1", b"Host: a.example", *fields(random_)]
    body = random_.randbytes(random_.choice((0, 1, 5, 200)))
    framing = random_.choice(("none", "length", "chunked"))
    if framing == "length":
        lines.insert(random_.randint(1, len(lines)), b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.insert(
            random_.randint(1, len(lines)),
            random_.choice((b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED")),
        )
        body = chunked(random_, body)
    else:
        body = b""
    return b"\r\n".join([*lines, b"", b""]) + body


def response(random_: random.Random) -> bytes:
    """A well-formed response to GET whose end can be told without the connection's."""
    status = random_.choice((200, 200, 404, 500, 204, 304, 100, 103))
    reason = random_.choice((b" OK", b" ", b" Not  Very\tGood", b" \xe9"))
    lines = [b"HTTP/1.1 %d" % status + reason, *fields(random_)]
    body = random_.randbytes(random_.choice((0, 1, 5, 200)))
    if status in (204, 304) or status < 200:
        body = b""
    elif random_.random() < 0.5:
        lines.append(b"Content-Length: %d" % len(body))
    else:
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(random_, body)
    return b"\r\n".join([*lines, b"", b""]) + body


def damage(random_: random.Random, data: bytes) -> bytes:
    """Insert, replace, remove or double a little."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        at = random_.randrange(len(data))
        kind = random_.randrange(5)
        if kind == 0:
            data = data[:at] + random_.choice(DAMAGE) + data[at:]
        elif kind == 1:
            data = data[:at] + random_.choice(DAMAGE) + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + data[at + random_.randint(1, 3) :]
        elif kind == 3:
            lines = data.split(b"\r\n")
            line = random_.randrange(len(lines))
            lines.insert(random_.randrange(len(lines)), lines[line])
            data = b"\r\n".join(lines)
        else:
            extra = random_.choice((
                b"Content-Length: 3", b"Content-Length : 3", b"Content-Length: 3, 3", b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: identity", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked",
                b" folded", b"Connection: Content-Length", b"Host: b", b"Content-Length: 0x1", b"Content-Length: 1_0",
            ))  # fmt: skip
            head, gap, rest = data.partition(b"\r\n")
            data = head + gap + extra + b"\r\n" + rest
        if not data:
            return b"\n"
    return data


def pieces(random_: random.Random, data: bytes) -> list[bytes]:
    """The same bytes, cut anywhere."""
    if random_.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted({0, len(data), *(random_.randint(0, len(data)) for _ in range(random_.randrange(6)))})
    return [data[one:two] for one, two in itertools.pairwise(cuts)]


def same(one: Message, other: Message) -> bool:
    """Whether two readers understood a message alike. A trailing blank in a reason phrase is nobody's business."""
    return (one.first, one.fields, one.body, one.is_whole) == (
        other.first,
        other.fields,
        other.body,
        other.is_whole,
    ) and one.trailers == other.trailers


def verdict(read: Callable[[], list[Message]]) -> tuple[list[Message], str]:
    """What was read, and why no more of it."""
    try:
        return read(), ""
    except Rejected as refusal:
        return refusal.messages, str(refusal)


def whole(found: list[Message]) -> list[Message]:
    return [each for each in found if each.is_whole]


@pytest.fixture
def random_() -> random.Random:
    print(f"TULLE_SEED={SEED}")
    return random.Random(SEED)


def case(data: bytes) -> str:
    return f"TULLE_SEED={SEED}: {data!r}"


@pytest.mark.parametrize("is_request", [True, False], ids=["requests", "responses"])
def test_well_formed_messages_are_read_as_others_read_them(random_: random.Random, is_request: bool) -> None:
    make = request if is_request else response
    for _ in range(ROUNDS):
        data = b"".join(make(random_) for _ in range(random_.choice((1, 1, 2, 3)) if is_request else 1))
        found = ours(is_request, pieces(random_, data))
        assert all(each.is_whole for each in found), case(data)
        for oracle in (by_h11, by_llhttp):
            expected = oracle(is_request, data)
            assert len(found) == len(expected), case(data)
            for one, other in zip(found, expected, strict=True):
                assert same(one, other), f"{oracle.__name__}: {one} != {other}; {case(data)}"


def is_known(why: str, data: bytes) -> bool:
    """What an oracle refuses that RFC 9112 leaves open, and that cannot be read in two ways."""
    lines = [line for line in data.split(b"\r\n") if b" HTTP/1." in line]
    return (
        # h11 and llhttp take no byte above 0x7f in a target; it goes on as it is.
        any(byte > 0x7E for line in lines for byte in line)
        # An empty line before a request line is to be ignored (RFC 9112 section 2.2); h11 does not.
        or "no request line received" in why
        # llhttp knows a list of methods, and wants a target to look like one of the four forms.
        or why.startswith(
            ("Invalid method", "Invalid char in url", "Unexpected char in url", "Invalid characters in url")
        )
        or "Expected space after method" in why
        or "Unexpected start char in url" in why
        # llhttp looks into the grammar of chunk extensions, which are dropped here.
        or "chunk extension" in why.lower()
        # h11 wants the reason phrase after a space that RFC 9112 section 4 asks for, but many leave out.
        or "illegal status line" in why
        or "Invalid response status" in why
        # h11 reads fields that frame in a trailer section; here they are dropped (RFC 9110 section 6.5.1).
        or (("Content-Length" in why or "Transfer-Encoding" in why) and b"0\r\n" in data)
    )


@pytest.mark.parametrize("is_request", [True, False], ids=["requests", "responses"])
def test_what_is_let_through_is_read_alike_by_others(random_: random.Random, is_request: bool) -> None:
    make = request if is_request else response
    taken = 0
    for _ in range(ROUNDS):
        data = damage(random_, b"".join(make(random_) for _ in range(random_.choice((1, 2)) if is_request else 1)))
        cut = pieces(random_, data)
        found, _ = verdict(lambda cut=cut: ours(is_request, cut))  # type: ignore[misc]
        # However the bytes arrive, the verdict is the same.
        at_once, _ = verdict(lambda data=data: ours(is_request, [data]))  # type: ignore[misc]
        assert [repr(each) for each in whole(found)] == [repr(each) for each in whole(at_once)], case(data)
        for oracle in (by_h11, by_llhttp):
            if oracle is by_llhttp and not is_request and found and int(str(found[0].first[0])) < 200:
                continue  # llhttp gives some informational responses a body, which they never have
            expected, why = verdict(lambda oracle=oracle, data=data: oracle(is_request, data))  # type: ignore[misc]
            if why and len(whole(found)) > len(whole(expected)):
                assert is_known(why, data), f"{oracle.__name__} refuses: {why}; {case(data)}"
                continue
            for one, other in zip(whole(found), whole(expected), strict=False):
                assert same(one, other), f"{oracle.__name__}: {one} != {other}; {case(data)}"
        taken += bool(whole(found))
    assert taken > ROUNDS * 0.1, "the damage leaves nothing to compare"
