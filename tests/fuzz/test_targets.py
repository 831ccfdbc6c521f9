"""Every target: its corpus once more, then a short search for something new. The long search is `make fuzz`."""

import os
import random
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import corpus
from tests.fuzz.search import inputs
from tests.fuzz.targets import TARGETS, Target

SEED: Final = int(os.environ.get("TULLE_SEED") or random.randrange(1 << 32))
EXAMPLES: Final = int(os.environ.get("TULLE_EXAMPLES") or 300)

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@every_target
def test_what_the_corpus_holds_is_read(target: Target) -> None:
    found = corpus.seeds(target.name)
    assert found, f"tests/fuzz/corpus/{target.name} is empty: a search needs something to begin with"
    for name, data in found.items():
        try:
            target.check(data)
        except BaseException as error:
            error.add_note(f"tests/fuzz/corpus/{target.name}/{name}")
            raise


@every_target
def test_a_short_search_finds_nothing(target: Target) -> None:
    print(f"TULLE_SEED={SEED}")

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs(list(corpus.seeds(target.name).values()), target.words))
    def search(data: bytes) -> None:
        target.check(data)

    search()


def test_every_folder_of_the_corpus_has_its_target() -> None:
    assert {path.name for path in corpus.FOLDER.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("data", [b"", b"a", b"# a\r\n\n #\\ \"'", bytes(range(256)), b"  \n  ", b"\\x41" * 99])
def test_a_file_of_the_corpus_stands_for_its_bytes(data: bytes) -> None:
    written = corpus.encode(data)
    assert corpus.decode(f"# why\n{written}") == data
    assert written.isascii()
    assert all(len(line) < corpus.WIDTH + 10 and line == line.strip("\r\t") for line in written.splitlines())


def test_a_search_can_find_something() -> None:
    """The search itself, on a parser that has a fault where two words of its language meet."""

    def faulty(data: bytes) -> None:
        assert b"onetwo" not in data

    @seed(1)
    @settings(
        max_examples=3000, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs([b"abc one def"], [b"two"]))
    def search(data: bytes) -> None:
        faulty(data)

    with pytest.raises(AssertionError) as raised:
        search()
    assert "onetwo" in str(raised.value.__notes__)
