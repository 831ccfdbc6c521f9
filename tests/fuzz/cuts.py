"""The same bytes in several cuts. Pure: the cuts of an input follow from the input alone, so a finding is its bytes."""

import itertools
import random
import zlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def cut(data: bytes) -> list[bytes]:
    """A few pieces, anywhere."""
    random_ = random.Random(zlib.crc32(data))
    places = sorted({0, len(data), *(random_.randint(0, len(data)) for _ in range(random_.randint(1, 5)))})
    return [data[one:two] for one, two in itertools.pairwise(places)]


def each_way(data: bytes, read: Callable[[list[bytes]], T]) -> T:
    """What `read` makes of the bytes, which must not depend on how they are cut."""
    whole = read([data])
    assert read([data[at : at + 1] for at in range(len(data))]) == whole, "byte by byte the same bytes read otherwise"
    assert read(cut(data)) == whole, "in pieces the same bytes read otherwise"
    return whole


def beginnings(data: bytes, most: int = 64) -> list[bytes]:
    """Prefixes by growing length, the whole last: all of them, or `most`."""
    if len(data) <= most:
        return [data[:end] for end in range(len(data) + 1)]
    random_ = random.Random(zlib.crc32(data))
    return [data[:end] for end in sorted({0, 1, 5, len(data), *random_.sample(range(len(data)), most - 4)})]
