"""JSON Patch: applying the difference to the first document gives the second, whatever the two are."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from components.injector.jsonpatch import json_patch

KEYS = st.text("ab/~", max_size=3)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.text("xy", max_size=2)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def apply_patch(document: Any, operations: list[dict[str, Any]]) -> Any:
    """A small reader of RFC 6902, written apart from the writer."""
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in ("" + operation["path"]).split("/")]
        place: Any = root
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if operation["op"] == "remove":
            del place[last]
        elif isinstance(place, list) and operation["op"] == "add":
            place.insert(int(last), operation["value"])
        elif isinstance(place, list):
            place[int(last)] = operation["value"]
        else:
            place[last] = operation["value"]
    return root[""]


def ordered(value: Any) -> Any:
    """With keys in order, so that two documents can be compared by how they read: `true` is not 1."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(each) for each in value] if isinstance(value, list) else value


@given(JSON, JSON)
def test_the_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    assert repr(ordered(apply_patch(before, json_patch(before, after)))) == repr(ordered(after))


@given(JSON)
def test_equal_documents_need_no_patch(document: Any) -> None:
    assert json_patch(document, copy.deepcopy(document)) == []


def test_insertions_into_a_list_are_insertions() -> None:
    assert json_patch({"a": [1, 3]}, {"a": [1, 2, 3, 4]}) == [
        {"op": "add", "path": "/a/1", "value": 2},
        {"op": "add", "path": "/a/3", "value": 4},
    ]


def test_keys_are_escaped() -> None:
    assert json_patch({}, {"linkerd.io/inject~": 1}) == [{"op": "add", "path": "/linkerd.io~1inject~0", "value": 1}]


def test_true_is_not_one() -> None:
    assert json_patch({"a": 1}, {"a": True}) == [{"op": "replace", "path": "/a", "value": True}]
