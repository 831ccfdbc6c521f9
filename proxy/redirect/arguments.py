"""The words in which a redirection is asked for, as a value: pure. The init container has them as its arguments, the
validator as its own, the CNI plugin in an annotation of the pod; all three are read here.
"""

import argparse
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from proxy.api import labels
from proxy.redirect import rules
from proxy.settings import network_list, port, port_set

MODES: Final = ("auto", "nft", "legacy")
LONGEST: Final = 4096
"""Characters of an annotation that are read: each port list has at most a few hundred ranges in any real pod."""
T = TypeVar("T")


class ArgumentsError(ValueError):
    """The words cannot be used; the message names the argument, what it holds and what to write."""


class Parser(argparse.ArgumentParser):
    """Raises ArgumentsError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentsError(message)


def parser(prog: str, description: str, *, add_help: bool = True) -> Parser:
    """What every asker may say; whoever needs more adds it."""
    made = Parser(prog=prog, description=description, add_help=add_help, allow_abbrev=False)
    made.add_argument("--inbound-port", default=str(labels.INBOUND_PORT), help="where inbound connections go")
    made.add_argument("--outbound-port", default=str(labels.OUTBOUND_PORT), help="where outbound connections go")
    made.add_argument("--proxy-uid", default=str(labels.PROXY_UID), help="whose own connections are left alone")
    made.add_argument("--proxy-gid", default="", help="the same by group, where there is one")
    made.add_argument("--inbound-skip-ports", default="", help="destination ports left alone, such as 25,8000-8080")
    made.add_argument("--outbound-skip-ports", default="", help="the same for connections that the pod makes")
    made.add_argument("--skip-subnets", default="", help="CIDRs whose inbound connections are left alone")
    made.add_argument("--inbound-only-ports", default="", help="redirect these ports alone, instead of all others")
    made.add_argument("--outbound-only-subnets", default="", help="redirect connections to these CIDRs alone")
    made.add_argument("--mode", default="auto", choices=MODES, help="which iptables; auto tries nft first")
    return made


def identifier(value: str) -> int:
    """A user or group id."""
    if not value.isascii() or not value.isdigit() or int(value) > 0xFFFFFFFE:
        raise ValueError(f"{value!r} is not a numeric id")
    return int(value)


def redirection_from(options: argparse.Namespace) -> rules.Redirection:
    """Arguments as a value; raises ArgumentsError."""

    def read(name: str, value: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise ArgumentsError(f"--{name}={value}: {error}") from error

    inbound = read("inbound-port", options.inbound_port, port)
    outbound = read("outbound-port", options.outbound_port, port)
    if inbound == outbound:
        raise ArgumentsError(f"--outbound-port={outbound}: must differ from --inbound-port")
    uid = read("proxy-uid", options.proxy_uid, identifier)
    if uid == 0:
        raise ArgumentsError(
            "--proxy-uid=0: name the user that the proxy runs as, or its own connections come back to it"
        )
    # The proxy's own ports are never redirected, whatever the caller forgot: a probe of 4191 must reach it as it is.
    own = f"{inbound},{labels.TAP_PORT},{labels.ADMIN_PORT},"
    return rules.Redirection(
        inbound_port=inbound,
        outbound_port=outbound,
        proxy_uid=uid,
        proxy_gid=read("proxy-gid", options.proxy_gid, identifier) if options.proxy_gid else None,
        inbound_skip=read("inbound-skip-ports", options.inbound_skip_ports, lambda ports: port_set(own + ports)),
        outbound_skip=read("outbound-skip-ports", options.outbound_skip_ports, port_set),
        skip_subnets=read("skip-subnets", options.skip_subnets, network_list),
        inbound_only=read("inbound-only-ports", options.inbound_only_ports, port_set),
        outbound_only=read("outbound-only-subnets", options.outbound_only_subnets, network_list),
    )


def from_annotation(value: str) -> tuple[rules.Redirection, str]:
    """What the annotation of a pod asks for, and by which iptables; raises ArgumentsError.

    The value is the init container's arguments, separated by spaces: none of them holds one.
    """
    if len(value) > LONGEST:
        raise ArgumentsError(f"{len(value)} characters, at most {LONGEST} are read: give port ranges, not single ports")
    options = parser(labels.REDIRECT, "", add_help=False).parse_args(value.split())
    return redirection_from(options), str(options.mode)
