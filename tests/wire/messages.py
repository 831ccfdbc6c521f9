"""Made-up HTTP/1 messages, whole and damaged, and the same bytes cut anywhere. Pure; the dice are given."""

import itertools
import random

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
