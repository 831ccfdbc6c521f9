"""Our HTTP/1 codec beside h11 and llhttp, on made-up messages, whole and damaged, cut anywhere.

The law is about what we let through: a message that we take must be read by the others in the same way (RFC 9112
section 11.2: a difference is how requests are smuggled). What we refuse may be fine for others; but no well-formed
message is refused.
"""

import os
import random

import pytest

from tests.wire.messages import damage, pieces, request, response
from tests.wire.oracles import Message, by_h11, by_llhttp, ours, verdict

SEED = int(os.environ.get("TULLE_SEED") or random.randrange(1 << 32))
ROUNDS = int(os.environ.get("TULLE_ROUNDS") or 3000)


def same(one: Message, other: Message) -> bool:
    """Whether two readers understood a message alike. A trailing blank in a reason phrase is nobody's business."""
    return (one.first, one.fields, one.body, one.is_whole) == (
        other.first,
        other.fields,
        other.body,
        other.is_whole,
    ) and one.trailers == other.trailers


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
            (
                "Invalid method",
                "Invalid char in url",
                "Unexpected char in url",
                "Invalid characters in url",
                # Whether more may follow on a connection (RFC 9112 section 9.3) is for whoever owns it: the codec says
                # `wants_close`, and the server reads no further.
                "Data after",
            )
        )
        or "Expected space after method" in why
        or "Unexpected start char in url" in why
        # So is whether a 101 was asked for: the client that did not ask refuses it.
        or "without a pending proposal" in why
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
