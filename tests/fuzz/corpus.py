"""Inputs as files: bytes written as ASCII text, so that a review can read them. Knows no target.

A file's lines are joined without their ends; `\\r`, `\\n`, `\\xNN` and `\\\\` mean what they mean in Python. A line
that begins with `#` says what the input is for.
"""

import hashlib
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"
WIDTH: Final = 100
_NAMED: Final = {0x0A: "\\n", 0x0D: "\\r", 0x5C: "\\\\"}


def decode(written: str) -> bytes:
    """The bytes that a file stands for."""
    lines = [line for line in written.split("\n") if not line.startswith("#")]
    return "".join(lines).encode("ascii").decode("unicode_escape").encode("latin-1")


def encode(data: bytes) -> str:
    """A file that stands for these bytes, with a line for each of theirs."""
    lines = [""]
    for byte in data:
        plain = 0x20 <= byte < 0x7F and byte not in _NAMED and not (byte == 0x23 and not lines[-1])
        lines[-1] += chr(byte) if plain else _NAMED.get(byte, f"\\x{byte:02x}")
        if byte == 0x0A or len(lines[-1]) >= WIDTH:
            lines.append("")
    # A blank at the end of a line would fall to the next editor.
    return "".join(f"{line[:-1]}\\x20\n" if line.endswith(" ") else f"{line}\n" for line in lines if line)


def seeds(target: str) -> dict[str, bytes]:
    """A target's inputs by the names of their files."""
    return {path.name: decode(path.read_text("ascii")) for path in sorted((FOLDER / target).glob("*.txt"))}


def keep(target: str, data: bytes, why: str) -> Path:
    """Write down an input that broke something; the same bytes always have the same file."""
    path = FOLDER / target / f"found-{hashlib.sha256(data).hexdigest()[:12]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = " ".join(why.split())[:WIDTH].encode("ascii", "backslashreplace").decode()
    path.write_text(f"# {said}\n{encode(data)}", "ascii")
    return path
