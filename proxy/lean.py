"""What asyncio and uvloop import and a proxy never uses, kept out of its memory. Nothing else belongs here.

`ssl`: the data path uses libssl itself, and the loop never speaks TLS; what it would take is mostly `_ssl`'s tables of
error names. `inspect`, with `ast` and `dis`: asked whether a callback is a coroutine function and what a
class annotates, and for no more. Together 2.5 MB of a process that runs once per pod.

`install` comes before the first import of asyncio. What is left out is missed loudly: `ssl` raises, `inspect` is loaded
then after all.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, Final, NoReturn

CO_COROUTINE: Final = 0x80
"""A flag of code objects (`inspect.CO_COROUTINE`)."""


class NoTLS:
    """Stands for the classes of `ssl` that the loop compares with; nothing is ever an instance of it."""

    def __init__(self, *_: object, **__: object) -> None:
        refuse()


class NoTLSError(OSError):
    """Stands for the exceptions of `ssl`; never raised."""


def refuse(*_: object, **__: object) -> NoReturn:
    """Raise RuntimeError: the loop was asked for TLS."""
    raise RuntimeError("the proxy's loop has no TLS: Python's ssl is not part of it (proxy.lean); use proxy.tls")


def tls_stand_in() -> ModuleType:
    """What uvloop and asyncio look up in `ssl` while they are imported."""
    module = ModuleType("ssl", "No TLS here: see proxy.lean.")
    for name in ("SSLContext", "MemoryBIO", "SSLObject"):
        setattr(module, name, NoTLS)
    for name in ("SSLError", "SSLWantReadError", "SSLWantWriteError", "SSLSyscallError", "SSLZeroReturnError"):
        setattr(module, name, NoTLSError)
    module.CertificateError = NoTLSError  # type: ignore[attr-defined]
    module.create_default_context = refuse  # type: ignore[attr-defined]
    for number, name in enumerate(("SSL_ERROR_WANT_READ", "SSL_ERROR_WANT_WRITE", "SSL_ERROR_SYSCALL"), 2):
        setattr(module, name, number)
    return module


class Deferred(ModuleType):
    """`inspect` until somebody asks it for more than these three."""

    @staticmethod
    def iscoroutinefunction(function: Any) -> bool:
        """Whether calling it makes a coroutine."""
        return bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & CO_COROUTINE)

    @staticmethod
    def isgenerator(thing: object) -> bool:
        """Whether it is a generator."""
        return type(thing).__name__ == "generator"

    @staticmethod
    def get_annotations(thing: Any) -> dict[str, Any]:
        """Those of a class, as `dataclasses` asks for them."""
        return dict(vars(thing).get("__annotations__", {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def install() -> None:
    """Put the stand-ins where they are looked for. Where one of the two is loaded already, it stays."""
    sys.modules.setdefault("ssl", tls_stand_in())
    sys.modules.setdefault("inspect", Deferred("inspect"))
