"""Made-up HTTP/1, whole and damaged, through a real proxy: what reaches the application is judged by h11 and llhttp.

The law: what is forwarded is what a reader of good repute reads too, message for message; what is refused is answered
with an error, the connection ends, and nothing of it is forwarded as whole. Every case follows a good request on its
connection, so that what does not look like HTTP at all is not taken for another protocol.
"""

import os
import random
import re
from collections.abc import Iterator
from typing import Final

import h11
import pytest

from tests.conformance.passage import Passage, through
from tests.kit.topology import Mesh, Pod
from tests.wire.messages import damage, pieces, request
from tests.wire.oracles import Message, by_llhttp, ours, verdict

SEED = int(os.environ.get("TULLE_SEED") or random.randrange(1 << 32))
CASES = int(os.environ.get("TULLE_CASES") or 3000)
"""Over all ways and kinds: half of them damaged, a third over both proxies. HTTP/2 has as many of its own."""

WARM: Final = b"GET /warm HTTP/1.1\r\nHost: warm\r\n\r\n"
HOP: Final = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"trailer", b"upgrade"}
"""What belongs to one connection; a proxy makes its own."""
OWN: Final = (b"l5d-", b"content-length", b"host", b"via", b"expect")
"""Fields that the proxy may add, drop or write anew."""
LLHTTPS_OWN: Final = (
    "Invalid method", "nvalid char", "Unexpected", "Expected space after method", "Invalid header token",
)  # fmt: skip


class Reader:
    """An application that reads with h11, the strictest of them, and answers every request; keeps the bytes as well."""

    def __init__(self) -> None:
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self.raw = b""
        self.messages: list[Message] = []
        self.fault = ""
        self.is_over = False

    def begin(self) -> None:
        """Forget the last case's messages."""
        self.raw, self.messages = b"", []

    def receive(self, data: bytes) -> bytes:
        """Take bytes; the answers to what is whole."""
        self.raw += data
        if self.fault or self.is_over:
            return b""
        answers = b""
        try:
            self.connection.receive_data(data)
            while True:
                event = self.connection.next_event()
                if isinstance(event, h11.Request):
                    first = (event.method, event.target, event.http_version[-1] - 48)
                    self.messages.append(Message(first, [(bytes(n).lower(), bytes(v)) for n, v in event.headers]))
                elif isinstance(event, h11.Data):
                    self.messages[-1].body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self.messages[-1].is_whole = True
                    self.messages[-1].trailers = [(bytes(n).lower(), bytes(v)) for n, v in event.headers]
                    answers += self.answer()
                else:
                    break
        except h11.RemoteProtocolError as error:
            if data:
                self.fault, self.is_over = str(error), True
        return answers

    def answer(self) -> bytes:
        """A short answer; HEAD's has no body."""
        is_head = self.messages[-1].first[0] == b"HEAD"
        out = self.connection.send(h11.Response(status_code=200, headers=[("content-length", "2")])) or b""
        if not is_head:
            out += self.connection.send(h11.Data(data=b"ok")) or b""
        out += self.connection.send(h11.EndOfMessage()) or b""
        if self.connection.our_state is h11.MUST_CLOSE:
            self.is_over = True
        else:
            self.connection.start_next_cycle()
        return out


@pytest.fixture(scope="module", params=["inbound", "both"])
def passage(request: pytest.FixtureRequest, mesh: Mesh, client: Pod, outsider: Pod, web: Pod) -> Iterator[Passage]:
    """Through one proxy in plaintext, or through two with mutual TLS between them."""
    port = 18_100 if request.param == "inbound" else 18_101
    both = request.param == "both"
    address = mesh.service("differential", 80, [web], target=port) if both else (web.ip, port)
    with through(web, port, client if both else outsider, address, Reader) as made:
        yield made


def statuses(back: bytes) -> list[int]:
    """The status codes of what came back, in order; bodies here hold nothing that looks like one."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3})", back)]


def kept(message: Message) -> list[tuple[bytes, bytes]]:
    """The fields that must arrive as they were sent."""
    named = {
        token.strip().lower() for name, value in message.fields if name == b"connection" for token in value.split(b",")
    }
    return sorted(
        (name, value)
        for name, value in message.fields
        if name not in HOP and name not in named and not name.startswith(OWN)
    )


def is_beyond_ascii(data: bytes) -> bool:
    """Whether a target has a byte above 0x7f. It goes on as it is, for many applications take UTF-8; h11 does not."""
    return any(byte > 0x7E for line in data.split(b"\r\n") if b" HTTP/1." in line for byte in line)


def target(message: Message) -> object:
    """The target without its authority: in which form it goes on is the proxy's business (RFC 9112 section 3.2.2)."""
    assert isinstance(message.first[1], bytes)
    return re.sub(rb"^http://[^/?]*", b"", message.first[1])


def judge(passage: Passage, random_: random.Random, data: bytes) -> bool:
    """One case; whether anything of it was forwarded. Raises AssertionError with all that is needed to see why."""
    cut = pieces(random_, data)
    expected, why = verdict(lambda: ours(True, [data]))
    wanted = [each for each in expected if each.is_whole]
    # The caller stays until it has all its answers: what it says no more of may be dropped with a last answer.
    back = passage.exchange([WARM, *cut], lambda seen: len(statuses(seen)) > len(wanted))
    say = f"TULLE_SEED={SEED}\nsent {data!r}\nback {back!r}\nforwarded {[each.raw for each in passage.applications]!r}"  # type: ignore[attr-defined]
    forwarded: list[Message] = []
    for application in passage.applications:
        assert isinstance(application, Reader)
        if application.fault and is_beyond_ascii(data):
            return False
        assert not application.fault, f"h11 does not understand what was forwarded: {application.fault}\n{say}"
        forwarded += application.messages
    application_bytes = b"".join(each.raw for each in passage.applications)  # type: ignore[attr-defined]
    second, fault = verdict(lambda: by_llhttp(True, application_bytes))
    # llhttp keeps a list of methods and wants targets of four forms; what it says of framing would be news.
    assert not fault or any(words in fault for words in LLHTTPS_OWN), f"llhttp refuses: {fault}\n{say}"
    whole = [each for each in forwarded if each.is_whole]
    if not fault:
        assert [each.body for each in second if each.is_whole] == [each.body for each in whole], say
    got = [each for each in whole if target(each) != b"/warm"]
    assert len(got) <= len(wanted), f"more was forwarded than was asked\n{say}"
    for one, other in zip(got, wanted, strict=False):
        assert (one.first[0], target(one), one.body) == (other.first[0], target(other), other.body), say
        assert set(kept(other)) <= set(one.fields) or one.first[2] == 0, f"{kept(other)} {one.fields}\n{say}"
    answers = statuses(back)
    assert answers, f"nothing came back, not even for the first request\n{say}"
    # After HTTP/1.0 nothing more is read.
    is_last = any(each.first[2] == 0 for each in wanted)
    if why and not is_last:
        assert answers[-1] >= 400, f"our reader refuses ({why}), but no error came back\n{say}"
    elif len(got) < len(wanted):
        # Refused by a rule beyond the codec's.
        assert answers[-1] >= 400 or is_last, say
    return bool(got)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_what_is_forwarded_is_what_others_read(passage: Passage, damaged: bool, request_share: int) -> None:
    random_ = random.Random(SEED + damaged)
    print(f"TULLE_SEED={SEED} TULLE_CASES={CASES}")
    forwarded = 0
    for _ in range(request_share):
        data = b"".join(request(random_) for _ in range(random_.choice((1, 1, 2, 3))))
        forwarded += judge(passage, random_, damage(random_, data) if damaged else data)
    assert forwarded > request_share * (0.1 if damaged else 0.99), "hardly anything was forwarded to be judged"


@pytest.fixture
def request_share(request: pytest.FixtureRequest) -> int:
    """How many cases this way gets: two thirds through one proxy, a third through both; half damaged."""
    share = 3 if request.node.callspec.params["passage"] == "inbound" else 6
    return CASES // share


HEAD: Final = b"POST /x HTTP/1.1\r\nHost: a\r\n"
TABLE: Final = {
    "CL.TE": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two CL that differ": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a list of CL": b"Content-Length: 1, 1\r\n\r\nx",
    "CL +1": b"Content-Length: +1\r\n\r\nx",
    "CL -1": b"Content-Length: -1\r\n\r\n",
    "CL 0x1": b"Content-Length: 0x1\r\n\r\nx",
    "CL 1_0": b"Content-Length: 1_0\r\n\r\n0123456789",
    "CL of 2^64": b"Content-Length: 18446744073709551616\r\n\r\n",
    "CL empty": b"Content-Length:\r\n\r\n",
    "TE twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE chunked, identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE chunked, chunked": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "TE xchunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE with VT": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE with NUL": b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "TE empty": b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "TE folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "space before colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "tab before colon": b"Content-Length\t: 1\r\n\r\nx",
    "folded line": b"X: 1\r\n 2\r\n\r\n",
    "first field indented": b" Content-Length: 1\r\n\r\nx",
    "bare LF in the head": b"X: 1\nContent-Length: 1\r\n\r\nx",
    "bare CR in the head": b"X: 1\rContent-Length: 1\r\n\r\nx",
    "bare LF ends the head": b"X: 1\r\n\n",
    "NUL in a value": b"X: a\0b\r\n\r\n",
    "no name": b": 1\r\n\r\n",
    "no colon": b"Content-Length 1\r\n\r\nx",
    "a name with a slash": b"Content/Length: 1\r\n\r\nx",
    "a name of eight bits": b"X-\xe9: 1\r\n\r\n",
    "two Hosts": b"Host: b\r\n\r\n",
}
CHUNKS: Final = {
    "0x1": b"0x1\r\nx\r\n0\r\n\r\n",
    "+1": b"+1\r\nx\r\n0\r\n\r\n",
    "-1": b"-1\r\nx\r\n0\r\n\r\n",
    "1_0": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "leading space": b" 1\r\nx\r\n0\r\n\r\n",
    "trailing space": b"1 \r\nx\r\n0\r\n\r\n",
    "more than 2^63": b"8000000000000000\r\nx\r\n0\r\n\r\n",
    "17 digits": b"00000000000000001\r\nx\r\n0\r\n\r\n",
    "bare LF after the size": b"1\nx\r\n0\r\n\r\n",
    "bare LF after the data": b"1\r\nx\n0\r\n\r\n",
    "bare LF in an extension": b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "bare CR in an extension": b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "a byte too many": b"1\r\nxy\r\n0\r\n\r\n",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "an extension without end": b"1;" + b"a" * 8192 + b"\r\nx\r\n0\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "space before a trailer's colon": b"0\r\nX : 1\r\n\r\n",
    "bare LF in the trailers": b"0\r\nX: 1\n\r\n",
}


@pytest.mark.parametrize("fields", TABLE.values(), ids=TABLE)
def test_ambiguous_framing_is_answered_and_never_forwarded(passage: Passage, fields: bytes) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    back = passage.exchange([WARM + HEAD + fields + smuggled], lambda seen: len(statuses(seen)) > 1)
    assert statuses(back) in ([200, 400], [200, 501]), back
    assert b"connection: close" in back.lower().rpartition(b"http/1.1 ")[2]
    forwarded = b"".join(each.raw for each in passage.applications)  # type: ignore[attr-defined]
    assert forwarded.count(b"HTTP/1.1\r\n") == 1, f"more than the warm request was forwarded: {forwarded!r}"


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_body_whose_chunks_cannot_be_told_never_ends_well(passage: Passage, chunks: bytes) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    data = WARM + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + smuggled
    back = passage.exchange([data], lambda seen: len(statuses(seen)) > 1)
    answers = statuses(back)
    assert answers[0] == 200 and answers[1] >= 400 and len(answers) == 2, back
    for application in passage.applications:
        assert isinstance(application, Reader)
        assert not application.fault, application.raw
        # The head had gone on before its body was read; what follows may not look like its end.
        assert [target(each) for each in application.messages if each.is_whole] == [b"/warm"], application.raw
        assert b"/smuggled" not in application.raw
