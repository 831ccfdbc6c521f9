"""The proxy's log lines."""

import json

import pytest

from proxy.telemetry.log import LIMIT_INTERVAL, MAX_KEYS, Log


def make(level: str = "info", style: str = "plain") -> tuple[Log, list[str], list[float]]:
    lines: list[str] = []
    clock = [0.0]
    return Log(level, style, lines.append, now=lambda: 1_700_000_000.25, clock=lambda: clock[0]), lines, clock


def test_a_plain_line_is_one_line_whatever_is_in_it() -> None:
    log, lines, _ = make()
    log.info("certificate loaded", identity="a.b", why='said "no"\nand left', empty="")
    assert lines == [
        '2023-11-14T22:13:20.250Z INFO  certificate loaded identity=a.b why="said \\"no\\"\\nand left" empty=""\n'
    ]


def test_a_json_line_holds_the_fields_as_they_are() -> None:
    log, lines, _ = make(style="json")
    log.error("no key", why=OSError("gone"), tries=3)
    assert json.loads(lines[0]) == {
        "timestamp": "2023-11-14T22:13:20.250Z", "level": "error", "event": "no key", "why": "gone", "tries": 3,
    }  # fmt: skip


def test_levels_are_changed_while_in_use() -> None:
    log, lines, _ = make("warn")
    log.info("unseen")
    log.debug("unseen")
    log.level = "debug"
    log.debug("seen")
    assert len(lines) == 1
    with pytest.raises(ValueError, match="write one of error, warn, info, debug"):
        log.level = "loud"
    log.level = "error"
    log.limited("k", "unseen")
    log.warning("unseen")
    assert len(lines) == 1


def test_a_warning_that_peers_cause_is_limited_and_counted() -> None:
    log, lines, clock = make()
    for _ in range(50):
        log.limited("bad", "malformed request")
    log.limited("other", "another thing")
    assert len(lines) == 2
    clock[0] = LIMIT_INTERVAL
    log.limited("bad", "malformed request")
    assert lines[2].endswith("malformed request left_out=49\n")


def test_keys_are_bounded() -> None:
    log, _, _ = make()
    for n in range(MAX_KEYS * 3):
        log.limited(f"key {n}", "x")
    assert len(log._limited) <= MAX_KEYS
