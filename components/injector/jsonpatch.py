"""The difference of two JSON documents as RFC 6902 operations: pure. Small and readable for what injection does:
adding.
"""

from typing import Any

Operation = dict[str, Any]


def json_patch(before: object, after: object, path: str = "") -> list[Operation]:
    """Operations that turn `before` into `after`."""
    if before == after and type(before) is type(after):
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
        if matched < len(before) and before[matched] == value:
            matched += 1
        else:
            inserted.append(index)
    return inserted if matched == len(before) else None


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
