"""`python3 -m proxy.redirect`: the init container. Reads arguments, applies or checks or prints, says what it did.

Exit codes: 0 in place, 1 not in place and not possible, 64 an argument that cannot be used.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from proxy.api import labels
from proxy.redirect import apply, rules
from proxy.settings import EXIT_BAD_SETTING, network_list, port, port_set

PROG: Final = "proxy.redirect"
T = TypeVar("T")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{PROG}: {message}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETTING)


def identifier(value: str) -> int:
    """A user or group id."""
    if not value.isascii() or not value.isdigit() or int(value) > 0xFFFFFFFE:
        raise ValueError(f"{value!r} is not a numeric id")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROG, description="Lead a pod's TCP through its proxy.")
    parser.add_argument("--inbound-port", default=str(labels.INBOUND_PORT), help="where inbound connections go")
    parser.add_argument("--outbound-port", default=str(labels.OUTBOUND_PORT), help="where outbound connections go")
    parser.add_argument("--proxy-uid", default=str(labels.PROXY_UID), help="whose own connections are left alone")
    parser.add_argument("--proxy-gid", default="", help="the same by group, where there is one")
    parser.add_argument("--inbound-skip-ports", default="", help="destination ports left alone, such as 25,8000-8080")
    parser.add_argument("--outbound-skip-ports", default="", help="the same for connections that the pod makes")
    parser.add_argument("--skip-subnets", default="", help="CIDRs whose inbound connections are left alone")
    parser.add_argument("--inbound-only-ports", default="", help="redirect these ports alone, instead of all others")
    parser.add_argument("--outbound-only-subnets", default="", help="redirect connections to these CIDRs alone")
    parser.add_argument("--remove", action="store_true", help="take the rules away; nothing to take is as good")
    parser.add_argument("--mode", default="auto", choices=apply.MODES, help="which iptables; auto tries nft first")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 0 only if the rules are in place")
    parser.add_argument("--print", action="store_true", help="show the rules and change nothing")
    return parser


def redirection_from(options: argparse.Namespace) -> rules.Redirection:
    """Arguments as a value; raises ValueError naming the argument, what it holds and what to write."""

    def read(name: str, value: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"--{name}={value}: {error}") from error

    inbound = read("inbound-port", options.inbound_port, port)
    outbound = read("outbound-port", options.outbound_port, port)
    if inbound == outbound:
        raise ValueError(f"--outbound-port={outbound}: must differ from --inbound-port")
    uid = read("proxy-uid", options.proxy_uid, identifier)
    if uid == 0:
        raise ValueError("--proxy-uid=0: name the user that the proxy runs as, or its own connections come back to it")
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


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    options = _parser().parse_args(arguments)
    try:
        redirection = redirection_from(options)
    except ValueError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_SETTING
    versions = apply.versions()
    if options.print:
        for version in versions:
            print(f"# IPv{version}", *rules.restore_lines(redirection, version), sep="\n")
        return 0
    try:
        for version in versions:
            if options.remove:
                for backend in apply.remove(options.mode, version, print):
                    print(f"IPv{version}: removed with {backend.name}")
            elif options.check:
                backend = apply.check(redirection, options.mode, version)
                print(f"IPv{version}: redirected by {backend.name}")
            else:
                backend = apply.apply(redirection, options.mode, version, print)
                print(f"IPv{version}: set with {backend.name}")
    except apply.RedirectError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    if 6 not in versions and not options.remove:
        print("IPv6: this pod has no address, so there is nothing to redirect")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
