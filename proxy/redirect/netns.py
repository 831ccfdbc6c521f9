"""Network namespaces of pods: does I/O. Enters one, and never takes the node's own for a pod's."""

import ctypes
import os
from typing import Final

CLONE_NEWNET: Final = 0x40000000
OWN: Final = "/proc/self/ns/net"


class NamespaceError(RuntimeError):
    """A network namespace that cannot be entered."""


def enter(path: str, home: str = OWN) -> None:
    """Make this process, and what it starts, part of a pod's network namespace; raises NamespaceError.

    `home` is the node's own: rules there would redirect every process of the machine.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"network namespace {path}: {error.strerror}") from error
    try:
        found, own = os.fstat(descriptor), os.stat(home)
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            raise NamespaceError(f"network namespace {path} is the node's own: its pod uses the host's network")
        _setns(descriptor, path)
    finally:
        os.close(descriptor)


def _setns(descriptor: int, path: str) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise NamespaceError(f"network namespace {path}: {os.strerror(ctypes.get_errno())}")
