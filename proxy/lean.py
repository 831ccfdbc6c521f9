"""What asyncio and uvloop import and a proxy never uses, kept out of its memory. Nothing else belongs here.

`ssl`: the data path uses libssl itself, and the loop never speaks TLS; what it would take is mostly `_ssl`'s tables of
error names. asyncio's own loop and its TLS: the loop is uvloop's. `inspect`, with `ast` and `dis`: asked whether a
callback is a coroutine function and what a class annotates, and for no more. `logging`, `locale`, `subprocess` and
`textwrap`: imported for what seldom happens. Together 4 MB of a process that runs once per pod.

`install` comes before the first import of asyncio. What is left out is missed loudly: `ssl` raises, asyncio has no loop
of its own, and the others are loaded then after all.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final, NoReturn, cast

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


def real(name: str) -> ModuleType:
    """The module itself, loaded now if it has not been yet."""
    STAND_INS.pop(name, None)
    if isinstance(sys.modules.get(name), Deferred):
        del sys.modules[name]
    return importlib.import_module(name)


class Deferred(ModuleType):
    """A module until somebody asks it for anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(real(self.__name__), name)


class DeferredInspect(Deferred):
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


class DeferredLogger:
    """A logger until somebody logs with it."""

    def __init__(self, name: str | None = None) -> None:
        self._name = name

    def addHandler(self, handler: object) -> None:
        """Nothing: the loop's few lines go to standard error by the last resort of `logging`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real("logging").getLogger(self._name), name)


class DeferredLogging(Deferred):
    """`logging` until somebody logs."""

    DEBUG = 10
    getLogger = DeferredLogger
    StreamHandler = object


class DeferredSubprocess(Deferred):
    """`subprocess` for who starts its children through uvloop, and needs the names of it alone."""

    PIPE, STDOUT, DEVNULL = -1, -2, -3

    class SubprocessError(Exception):
        """A child that could not be prepared."""


def empty(name: str) -> ModuleType:
    """A module of asyncio's that brings nothing into its package."""
    module = ModuleType(name, "Not part of the proxy: see proxy.lean.")
    module.__all__ = ()  # type: ignore[attr-defined]
    return module


STAND_INS: Final[dict[str, Callable[[str], ModuleType]]] = {
    "ssl": lambda _: tls_stand_in(),
    "asyncio.sslproto": empty,
    "asyncio.unix_events": empty,
    "inspect": DeferredInspect,
    "logging": DeferredLogging,
    "locale": Deferred,
    "subprocess": DeferredSubprocess,
    "textwrap": Deferred,
}


class StandIns:
    """Finds the stand-ins as import finds modules, so that those of a package become its attributes. A finder and
    loader by its methods alone: the classes for it in `importlib.abc` bring more than is left out here.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for what has a stand-in."""
        return ModuleSpec(fullname, cast("Any", self)) if fullname in STAND_INS else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return STAND_INS[spec.name](spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It is complete already."""


def install() -> None:
    """Have the stand-ins found first. What is loaded already stays."""
    sys.meta_path.insert(0, StandIns())
