"""The project and its stacks as files: `Pulumi.yaml` (schema and defaults) and `Pulumi.<stack>.yaml` (what differs),
merged and checked.

The rules are the Pulumi CLI's own, so that a stack file means the same to both: a key without a namespace is the
project's, a default applies where the stack is silent, a value has the declared type, a secret one is never plain text.
"""

import base64
import binascii
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from components.deploy.errors import DeployError

PASSPHRASE: Final = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105  the name of a variable
ROUNDS: Final = 1_000_000
"""PBKDF2 rounds of Pulumi's passphrase secrets provider."""
SHARE: Final = Path("share", "tulle")
"""Where a wheel puts the project's files, below the environment it is installed in."""
_TYPES: Final = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


@dataclass(frozen=True, slots=True)
class StackConfig:
    """The complete config of one stack, as the SDK takes it: texts under full keys."""

    values: dict[str, str]
    secret_keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder."""

    root: Path
    name: str
    schema: Mapping[str, Mapping[str, Any]]

    @property
    def main(self) -> Path:
        """The program."""
        return self.root / "__main__.py"

    def stacks(self) -> list[str]:
        """Names of the stacks that have a file."""
        return sorted(path.name.split(".")[1] for path in self.root.glob("Pulumi.*.yaml"))

    def config(self, stack: str, overrides: Mapping[str, str]) -> StackConfig:
        """Defaults, then the stack file, then `-c key=value`."""
        path = self.root / f"Pulumi.{stack}.yaml"
        if not path.is_file():
            known = ", ".join(self.stacks()) or "none"
            raise DeployError(
                f"there is no stack {stack!r} (no file {path.name})", f"Stacks here: {known}. Choose one with --stack."
            )
        document = _yaml(path)
        values: dict[str, str] = {}
        secret_keys = {self._full(key) for key, declared in self.schema.items() if declared.get("secret")}
        for key, declared in self.schema.items():
            if "default" in declared:
                values[self._full(key)] = self._checked(key, declared["default"], "Pulumi.yaml")
        for key, value in (document.get("config") or {}).items():
            short = self._short(key)
            if isinstance(value, Mapping) and set(value) == {"secure"}:
                value = _decrypt(str(value["secure"]), str(document.get("encryptionsalt", "")), f"{path.name}: {short}")
                secret_keys.add(self._full(key))
            elif self.schema.get(short, {}).get("secret"):
                raise DeployError(
                    f"{path.name}: {short} is a secret, but stands there in plain text",
                    f"Store it encrypted (`pulumi config set --secret {short}`) or pass it with -c {short}=@<file>.",
                )
            values[self._full(key)] = self._checked(short, value, path.name)
        for key, text in overrides.items():
            short = self._short(key)
            shown = "[secret]" if self.schema.get(short, {}).get("secret") else text
            values[self._full(key)] = self._checked(short, self._parsed(short, text), f"-c {short}={shown}")
        missing = [
            key for key, declared in self.schema.items() if "default" not in declared and "value" not in declared
        ]
        for key in missing:
            if self._full(key) not in values:
                raise DeployError(
                    f"config key {key} has no value in stack {stack}", f"Set it in {path.name} or with -c {key}=..."
                )
        return StackConfig(values, frozenset(secret_keys & set(values)))

    def _full(self, key: str) -> str:
        return key if ":" in key else f"{self.name}:{key}"

    def _short(self, key: str) -> str:
        short = str(key).removeprefix(f"{self.name}:")
        if ":" not in short and short not in self.schema:
            close = difflib.get_close_matches(short, self.schema, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise DeployError(f"unknown config key {short!r}", f"{hint}Pulumi.yaml lists all keys.")
        return short

    def _parsed(self, key: str, text: str) -> Any:
        declared = str(self.schema.get(key, {}).get("type", "string"))
        if text.startswith("@"):
            try:
                text = Path(text[1:]).expanduser().read_text()
            except OSError as error:
                raise DeployError(f"-c {key}={text}: {error}", "After @ comes the path of a readable file.") from error
        if declared == "string":
            return text
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise DeployError(f"config key {key}: {text!r} is not {declared}: {error}") from error

    def _checked(self, key: str, value: Any, where: str) -> str:
        declared = str(self.schema.get(key, {}).get("type", "string"))
        wanted = _TYPES.get(declared, str)
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
            fits, value = True, str(value)  # YAML reads an unquoted 1.0 as a number, and Pulumi takes it for a string
        if wanted is not str and isinstance(value, str):
            # Pulumi's own stack files hold integers and booleans as quoted text now and then.
            try:
                value = json.loads(value)
                fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
            except ValueError:
                fits = False
        if not fits:
            shown = "[secret]" if self.schema.get(key, {}).get("secret") else repr(value)
            raise DeployError(
                f"{where}: config key {key} is {shown}, which is no {declared}",
                f"Set {key} to a value of type {declared}: {self.schema.get(key, {}).get('description', '')}",
            )
        return value if isinstance(value, str) else json.dumps(value)


def find(start: Path) -> Project:
    """The project of a folder or of the nearest folder above it that has a Pulumi.yaml; else the one this code belongs
    to.
    """
    for folder in (start, *start.parents):
        if (folder / "Pulumi.yaml").is_file():
            return load(folder)
    return load(own())


def own() -> Path:
    """The project folder that this code belongs to: the clone's root, or where an installation keeps the files of it
    (`share/tulle` below the environment, or beside the packages).
    """
    for folder in Path(__file__).resolve().parents:
        for found in (folder, folder / SHARE):
            if (found / "Pulumi.yaml").is_file():
                return found
    raise DeployError(
        "this installation of Tulle has no Pulumi.yaml", "Install it anew, or point to a clone with --cwd."
    )


def load(root: Path) -> Project:
    """The project in one folder."""
    document = _yaml(root / "Pulumi.yaml")
    schema: dict[str, Mapping[str, Any]] = {}
    for key, declared in (document.get("config") or {}).items():
        schema[str(key)] = (
            declared if isinstance(declared, Mapping) else {"default": declared, "type": _type_of(declared)}
        )
    return Project(root.resolve(), str(document.get("name", root.name)), schema)


def overrides(pairs: Iterable[str]) -> dict[str, str]:
    """`key=value` texts of the command line."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise DeployError(f"-c {pair!r} is not of the form key=value", "For example: -c replicas=3")
        parsed[key] = value
    return parsed


def _type_of(value: Any) -> str:
    return next((name for name, kind in reversed(list(_TYPES.items())) if isinstance(value, kind)), "string")


def _yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise DeployError(f"{path} is not valid YAML: {error}", "Correct it there.") from error
    if not isinstance(document or {}, dict):
        raise DeployError(f"{path} does not hold a mapping", "It should begin with `config:`.")
    return document or {}


def _decrypt(secure: str, salt_text: str, where: str) -> str:
    """A value encrypted by Pulumi's passphrase provider (`v1:<nonce>:<ciphertext>`, AES-256-GCM under PBKDF2)."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    way_out = f"Set {PASSPHRASE} or {PASSPHRASE}_FILE to the passphrase with which the stack's secrets were set."
    passphrase = os.environ.get(PASSPHRASE)
    if passphrase is None and os.environ.get(f"{PASSPHRASE}_FILE"):
        passphrase = Path(os.environ[f"{PASSPHRASE}_FILE"]).read_text().strip()
    if passphrase is None:
        raise DeployError(f"{where} is encrypted and no passphrase is set", way_out)
    try:
        salt = base64.b64decode(salt_text.split(":")[1])
        _, nonce, ciphertext = secure.split(":")
        key = PBKDF2HMAC(SHA256(), 32, salt, ROUNDS).derive(passphrase.encode())
        return AESGCM(key).decrypt(base64.b64decode(nonce), base64.b64decode(ciphertext), None).decode()
    except (IndexError, ValueError, binascii.Error) as error:
        raise DeployError(
            f"{where} is not a value of Pulumi's passphrase provider", "Other secrets providers need the Pulumi CLI."
        ) from error
    except InvalidTag as error:
        raise DeployError(f"{where} cannot be decrypted: wrong passphrase", way_out) from error
