"""Parts of bytes behind their lengths, as a key pair travels over a pipe and lies in a file: pure."""


def framed(*parts: bytes) -> bytes:
    """Each part behind its length, four bytes, big-endian."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
