"""HTTP/1 requests whose connection ended before their answer: sent once more where that is safe."""

import select

from tests.kit.lines import SECONDS, Line

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_a_get_that_broke_before_its_answer_is_sent_once_more(line: Line) -> None:
    caller = line.open()
    caller.send("GET /again HTTP/1.1\r\nHost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.reset()
    app = line.accept()
    assert app.head()[0] == "GET /again HTTP/1.1"
    app.send(OK)
    assert caller.answer().body == b"ok"


def test_a_peer_that_closes_all_its_idle_connections_costs_no_request(line: Line) -> None:
    pooled = []
    callers = [line.open() for _ in range(3)]
    for caller in callers:
        caller.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\n")
        pooled.append(line.accept())
        pooled[-1].head()
    for peer in pooled:
        peer.send(OK)
    assert [caller.answer().status for caller in callers] == [200, 200, 200]
    callers[0].send("GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
    # Whichever of them has it; the others look as good as before when it ends.
    (ready, *_), _, _ = select.select([peer.socket for peer in pooled], [], [], SECONDS)
    ready.close()
    with line.accept() as fresh:
        assert fresh.head()[0] == "GET /second HTTP/1.1"
        fresh.send(OK)
        assert callers[0].answer().body == b"ok"
