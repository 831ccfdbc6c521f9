"""gRPC's framing: messages cut anywhere, statuses from wherever they come."""

import pytest

from proxy.wire import grpc


@pytest.mark.parametrize("size", [1, 2, 5, 6, 1000])
def test_messages_survive_any_cut(size: int) -> None:
    messages = [b"", b"a", b"bc" * 300, b""]
    data = b"".join(map(grpc.encode, messages))
    reader = grpc.MessageReader()
    found = [m for at in range(0, len(data), size) for m in reader.feed(data[at : at + size])]
    assert found == messages
    assert reader.is_between_messages


def test_a_partial_message_is_noticed() -> None:
    reader = grpc.MessageReader()
    assert reader.feed(grpc.encode(b"whole") + b"\0\0") == [b"whole"]
    assert not reader.is_between_messages


@pytest.mark.parametrize(
    ("data", "words"), [(b"\1\0\0\0\0", "compressed"), (b"\0\xff\xff\xff\xff", "4294967295 bytes")]
)
def test_what_is_not_taken_is_refused_before_it_is_held(data: bytes, words: str) -> None:
    with pytest.raises(grpc.FramingError, match=words):
        grpc.MessageReader().feed(data)


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        ([(b"grpc-status", b"0")], grpc.Status(0)),
        ([(b"grpc-status", b"7"), (b"grpc-message", b"f%C3%BCr 100%25 nicht")], grpc.Status(7, "für 100% nicht")),
        ([(b"grpc-message", b"%zz%4%"), (b"grpc-status", b"13")], grpc.Status(13, "%zz%4%")),
        ([(b"grpc-status", b"-1")], grpc.Status(grpc.UNKNOWN)),
        ([(b"grpc-status", b"99999999999999")], grpc.Status(grpc.UNKNOWN)),
        ([(b"x", b"y")], None),
    ],
)
def test_a_status_is_read_from_trailers(trailers: list[tuple[bytes, bytes]], status: grpc.Status | None) -> None:
    assert grpc.status_from_trailers(trailers) == status


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b":status", b"200"), (b"content-type", b"application/grpc+proto")], None),
        ([(b":status", b"200"), (b"content-type", b"text/html")], grpc.UNKNOWN),
        ([(b":status", b"503")], grpc.UNAVAILABLE),
        ([(b":status", b"403")], grpc.PERMISSION_DENIED),
        ([(b":status", b"418")], grpc.UNKNOWN),
        ([(b":status", b"503"), (b"grpc-status", b"8")], grpc.RESOURCE_EXHAUSTED),
        ([], grpc.UNKNOWN),
    ],
)
def test_an_answer_that_is_not_grpc_is_an_error_with_a_meaning(
    headers: list[tuple[bytes, bytes]], code: int | None
) -> None:
    status = grpc.status_from_headers(headers)
    assert (None if status is None else status.code) == code


def test_a_timeout_is_at_least_a_millisecond_and_at_most_eight_digits() -> None:
    def header(timeout: float | None) -> bytes | None:
        return dict(grpc.request_headers("/s/M", "a", timeout)).get(b"grpc-timeout")

    assert [header(t) for t in (None, 0.0001, 2.5, 10**9)] == [None, b"1m", b"2500m", b"99999999m"]


def test_codes_have_names() -> None:
    assert str(grpc.CallError(grpc.Status(14, "gone"))) == "UNAVAILABLE: gone"
    assert str(grpc.CallError(grpc.Status(99))) == "CODE_99"
