"""Pure: values as Pulumi's SDK sends them, to and from plain Python; and the secrets among them.

The marks are part of Pulumi's protocol (`pulumi.runtime.rpc`): a secret is a struct with a signature, an unknown is one
fixed string, numbers are doubles, nulls mean absence.
"""

import base64
import binascii
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

SIGNATURE_KEY: Final = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105  a mark of the protocol
OUTPUT_SIGNATURE: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
REFERENCE_SIGNATURE: Final = "5cf8f73096256a8f31e491e813e4eb8e"
UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
HIDDEN: Final = "[secret]"
LATER: Final = "(known after apply)"
SHORTEST_SECRET: Final = 6
"""Characters: a shorter value is hidden where it is marked, but not searched for in other text, where it would hit by
accident.
"""
SHORTEST_KEY_LINE: Final = 32


class Secrets:
    """The secret values met during one deployment; hides them in whatever is printed or stored."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def add(self, value: object) -> None:
        """Remember every text inside a value, and its base64 form (what a Secret's `data` shows)."""
        if isinstance(value, Mapping):
            for inner in value.values():
                self.add(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                self.add(inner)
        elif isinstance(value, str) and len(value.strip()) >= SHORTEST_SECRET and value != UNKNOWN:
            plain = {value}
            with contextlib.suppress(binascii.Error, UnicodeDecodeError, ValueError):
                plain.add(base64.b64decode(value, validate=True).decode())
            for text in plain:
                self._values |= {text, text.strip(), base64.b64encode(text.encode()).decode()}
                # Each long line of a key is as secret as the whole, wherever it may turn up alone.
                lines = (line for line in text.splitlines() if not line.startswith("-----"))
                self._values |= {line for line in lines if len(line) >= SHORTEST_KEY_LINE}

    def redact(self, text: str) -> str:
        """The text without any value remembered; the longest first, so that no tail of one is left."""
        for value in sorted(self._values, key=len, reverse=True):
            if len(value) >= SHORTEST_SECRET and value in text:
                text = text.replace(value, HIDDEN)
        return text

    def hide(self, value: Any) -> Any:
        """The same value with every text in it redacted."""
        if isinstance(value, Mapping):
            return {key: self.hide(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(inner) for inner in value]
        return self.redact(value) if isinstance(value, str) else value


def decode(value: Any, secrets: Secrets) -> Any:
    """A value of the protocol (already out of its protobuf clothes) as plain data; secrets are unwrapped and
    remembered.
    """
    if isinstance(value, Mapping):
        signature = value.get(SIGNATURE_KEY)
        if signature == SECRET_SIGNATURE:
            inner = decode(value.get("value"), secrets)
            secrets.add(inner)
            return inner
        if signature == OUTPUT_SIGNATURE:
            inner = decode(value.get("value", UNKNOWN), secrets)
            if value.get("secret"):
                secrets.add(inner)
            return inner
        if signature == REFERENCE_SIGNATURE:
            return value.get("id") or value.get("urn")
        return {key: decode(inner, secrets) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [decode(inner, secrets) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def secret(value: Any) -> dict[str, Any]:
    """Mark a value as secret for the SDK."""
    return {SIGNATURE_KEY: SECRET_SIGNATURE, "value": value}


def marked_secret(value: Any) -> bool:
    """Whether the SDK marked this value itself as secret."""
    return (
        isinstance(value, Mapping)
        and value.get(SIGNATURE_KEY) in (SECRET_SIGNATURE, OUTPUT_SIGNATURE)
        and (value.get(SIGNATURE_KEY) == SECRET_SIGNATURE or bool(value.get("secret")))
    )


def has_unknown(value: Any) -> bool:
    """Whether any part of a decoded value will be known only after apply."""
    if isinstance(value, Mapping):
        return any(has_unknown(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(has_unknown(inner) for inner in value)
    return isinstance(value, str) and UNKNOWN in value


def mark_outputs(outputs: Mapping[str, Any], secret_keys: Iterable[str]) -> dict[str, Any]:
    """Outputs for the SDK, with the named top-level ones marked secret."""
    names = set(secret_keys)
    return {key: secret(value) if key in names else value for key, value in outputs.items() if value is not None}
