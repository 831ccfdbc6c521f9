"""The HTTP/1 codec's own promises: limits, framing, and that it does not matter how bytes arrive."""

import pytest

from tests.wire.oracles import Message, Rejected, ours

GOOD = {
    "a GET": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n",
    "trailers": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n",
    "two": b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_it_does_not_matter_where_bytes_are_cut(data: bytes) -> None:
    expected = ours(True, [data])
    assert all(each.is_whole for each in expected)
    for cut in range(1, len(data)):
        assert ours(True, [data[:cut], data[cut:]]) == expected
    assert ours(True, [data[at : at + 1] for at in range(len(data))]) == expected


def refusal(data: bytes, *, is_request: bool = True, eof: bool = False, method: bytes = b"GET") -> str:
    with pytest.raises(Rejected) as caught:
        ours(is_request, [data], eof=eof, method=method)
    return str(caught.value)


def test_a_head_has_limits() -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\n"
    assert refusal(start + b"X: " + b"y" * 65536 + b"\r\n\r\n").startswith("431")
    assert refusal(start + b"X: " + b"y" * 70000).startswith("431")
    assert refusal(start + b"X: 1\r\n" * 128 + b"\r\n") == "431 too many header fields"
    assert len(ours(True, [start + b"X: 1\r\n" * 127 + b"\r\n"])[0].fields) == 128
    assert refusal(b"M" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n").startswith("400")


def test_chunks_have_limits() -> None:
    start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refusal(start + b"1" * 16 + b"\r\n") == "400 chunk size too large"
    assert refusal(start + b"0" * 16 + b"\r\n").startswith("400")
    assert refusal(start + b"1;" + b"x" * 1100) == "400 chunk-size line too long"
    assert refusal(start + b"0\r\nX: " + b"y" * 9000) == "431 trailers too large"
    assert refusal(start + b"5\r\nhelloX\r\n") == "400 chunk data does not end in CRLF"
    assert refusal(start + b"1\nx\r\n") == "400 malformed chunk size"
    assert refusal(start + b" 1\r\nx\r\n") == "400 malformed chunk size"


def test_chunks_do_not_cost_much_more_than_their_data() -> None:
    """CVE-2023-39326: extensions, or zeros before a size, that make a byte of data cost a thousand on the wire."""
    start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refusal(start + (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 20) == "400 more chunk framing than data"
    signed = b"10000;chunk-signature=" + b"0" * 64 + b"\r\n" + b"x" * 65536 + b"\r\n"
    assert len(ours(True, [start + signed * 40 + b"0\r\n\r\n"])[0].body) == 40 * 65536
    single = b"1\r\nx\r\n" * 50_000
    assert len(ours(True, [start + single + b"0\r\n\r\n"])[0].body) == 50_000
    few = (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 10 + b"0\r\n\r\n"
    assert len(ours(True, [start + few, start + few])) == 2, "each message has its own allowance"


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1 1", b"1,1", b"0x1", b"1_0", b"9" * 19, "١".encode()])
def test_a_length_is_plain_digits(length: bytes) -> None:
    assert refusal(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + length + b"\r\n\r\n").startswith("400")


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(204, b"GET", b""), (304, b"GET", b""), (200, b"HEAD", b""), (200, b"CONNECT", b""), (200, b"GET", b"rest")],
)
def test_what_ends_a_response(status: int, method: bytes, body: bytes) -> None:
    found = ours(False, [b"HTTP/1.1 %d X\r\n\r\n" % status + body], eof=True, method=method)
    assert found == [Message((status, b"X", 1), [], body, [], True)]


def test_an_end_in_the_middle_is_an_error() -> None:
    middle = "connection closed in the middle of a message"
    assert refusal(b"GET / HT", eof=True) == f"400 {middle}"
    assert refusal(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", is_request=False, eof=True) == f"502 {middle}"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    assert refusal(chunked, is_request=False, eof=True) == f"502 {middle}"
    assert ours(True, [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], eof=True)[0].is_whole


def test_framing_fields_in_trailers_change_nothing() -> None:
    data = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\n\r\n"
        + GOOD["a GET"]
    )
    assert [each.first[0] for each in ours(True, [data])] == [b"POST", b"GET"]
