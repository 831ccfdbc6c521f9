"""How inputs are made up: seeds of the corpus, edited. A hypothesis strategy, so that what is found is made small."""

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

MAX_EDITS: Final = 6
EDITS: Final = ("insert", "replace", "remove", "double", "cut", "splice")


@st.composite
def inputs(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A seed, or nothing, after a few edits."""
    data = draw(st.sampled_from([*seeds, b""]))
    piece = st.one_of(st.sampled_from(words), st.binary(min_size=1, max_size=6))
    for edit in draw(st.lists(st.sampled_from(EDITS), max_size=MAX_EDITS)):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(1, 24)))
        match edit:
            case "insert":
                data = data[:at] + draw(piece) + data[at:]
            case "replace":
                data = data[:at] + (new := draw(piece)) + data[at + len(new) :]
            case "remove":
                data = data[:at] + data[end:]
            case "double":
                data = data[:end] + data[at:]
            case "cut":
                data = data[:at]
            case "splice":
                other = draw(st.sampled_from([*seeds, b""]))
                data = data[:at] + other[draw(st.integers(0, len(other))) :]
    return data
