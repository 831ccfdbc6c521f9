"""The difference of two JSON documents as RFC 6902 operations: pure. Small and readable for what injection does:
adding.
"""

from typing import Any

Operation = dict[str, Any]


def json_patch(before: object, after: object, path: str = "") -> list[Operation]:
    """Operations that turn `before` into `after`."""
    if _same(before, after):
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        operations: list[Operation] = [
            {"op": "remove", "path": f"{path}/{_escape(key)}"} for key in before if key not in after
        ]
        for key, value in after.items():
            place = f"{path}/{_escape(key)}"
            if key in before:
                operations += json_patch(before[key], value, place)
            else:
                operations.append({"op": "add", "path": place, "value": value})
        return operations
    if isinstance(before, list) and isinstance(after, list):
        insertions = _insertions(before, after)
        if insertions is not None:
            return [{"op": "add", "path": f"{path}/{index}", "value": after[index]} for index in insertions]
    return [{"op": "replace", "path": path, "value": after}]


def _insertions(before: list[Any], after: list[Any]) -> list[int] | None:
    """The indices of `after` whose insertion, in this order, turns `before` into it; None if something was removed or
    changed.
    """
    inserted: list[int] = []
    matched = 0
    for index, value in enumerate(after):
        if matched < len(before) and _same(before[matched], value):
            matched += 1
        else:
            inserted.append(index)
    return inserted if matched == len(before) else None


def _same(one: object, other: object) -> bool:
    """Equality as JSON has it: `true` is not 1, though Python says so."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
