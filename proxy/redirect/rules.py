"""Which iptables rules lead a pod's TCP through its proxy: pure. Settings in, `iptables-restore` lines out, and the
reverse question: whether a saved table has them. Runs nothing.

Order and comments are Linkerd's (proxy-init), so that whoever knows those rules knows these. Only table nat, only TCP:

    PREROUTING -> PROXY_INIT_REDIRECT   skip ports, skip subnets (by source), the rest to the inbound port
    OUTPUT     -> PROXY_INIT_OUTPUT     the proxy itself, loopback, skip ports, the rest to the outbound port
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from proxy.settings import PortSet

INBOUND_CHAIN: Final = "PROXY_INIT_REDIRECT"
OUTBOUND_CHAIN: Final = "PROXY_INIT_OUTPUT"
SLOTS: Final = 15
"""Ports in one multiport match, a range counting twice (iptables-extensions, multiport)."""

NO_PORTS: Final = PortSet()

_COMMENT: Final = re.compile(r'--comment "?(proxy-init/[^"\s]+)')


@dataclass(frozen=True, slots=True)
class Redirection:
    """What is to be redirected, and what is not."""

    inbound_port: int
    outbound_port: int
    proxy_uid: int
    proxy_gid: int | None = None
    inbound_skip: PortSet = NO_PORTS
    outbound_skip: PortSet = NO_PORTS
    skip_subnets: tuple[IPv4Network | IPv6Network, ...] = ()
    inbound_only: PortSet = NO_PORTS
    """The ports that are redirected, where not all are: a machine has more to do than a pod."""
    outbound_only: tuple[IPv4Network | IPv6Network, ...] = ()
    """The same for where outbound connections go: the networks of the cluster."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it matches, what it does, and the comment by which it is found again."""

    match: str
    target: str
    comment: str

    def line(self, chain: str) -> str:
        """As iptables-restore reads it."""
        match = f"{self.match} " if self.match else ""
        return f"-A {chain} {match}-m comment --comment proxy-init/{self.comment} -j {self.target}"


def batches(ports: PortSet) -> list[str]:
    """Ports as multiport lists of at most SLOTS slots."""
    lists: list[list[str]] = []
    free = 0
    for low, high in ports.ranges:
        cost = 1 if low == high else 2
        if cost > free:
            lists.append([])
            free = SLOTS
        lists[-1].append(str(low) if low == high else f"{low}:{high}")
        free -= cost
    return [",".join(items) for items in lists]


def inbound_rules(redirection: Redirection, version: int) -> list[Rule]:
    """The rules of PROXY_INIT_REDIRECT for one IP version, in order."""
    rules = [_skip(ports) for ports in batches(redirection.inbound_skip)]
    rules += [
        Rule(f"-p all -s {subnet}", "RETURN", f"ignore-subnet-{subnet}")
        for subnet in redirection.skip_subnets
        if subnet.version == version
    ]
    to = f"REDIRECT --to-port {redirection.inbound_port}"
    if redirection.inbound_only.ranges:
        return [
            *rules,
            *(
                Rule(f"-p tcp -m multiport --dports {ports}", to, f"redirect-port-{ports}-to-proxy-port")
                for ports in batches(redirection.inbound_only)
            ),
        ]
    return [*rules, Rule("-p tcp", to, f"redirect-all-incoming-to-proxy-port-{redirection.inbound_port}")]


def outbound_rules(redirection: Redirection, version: int) -> list[Rule]:
    """The rules of PROXY_INIT_OUTPUT for one IP version, in order."""
    rules = []
    # First of all, or the proxy's own connections would come back to it for ever.
    if redirection.proxy_uid > 0:
        uid = redirection.proxy_uid
        rules.append(Rule(f"-m owner --uid-owner {uid}", "RETURN", f"ignore-proxy-user-id-{uid}"))
    if redirection.proxy_gid is not None and redirection.proxy_gid > 0:
        gid = redirection.proxy_gid
        rules.append(Rule(f"-m owner --gid-owner {gid}", "RETURN", f"ignore-proxy-group-id-{gid}"))
    rules.append(Rule("-o lo", "RETURN", "ignore-loopback"))
    rules += [_skip(ports) for ports in batches(redirection.outbound_skip)]
    to = f"REDIRECT --to-port {redirection.outbound_port}"
    if redirection.outbound_only:
        return [
            *rules,
            *(
                Rule(f"-p tcp -d {subnet}", to, f"redirect-subnet-{subnet}-to-proxy-port")
                for subnet in redirection.outbound_only
                if subnet.version == version
            ),
        ]
    return [*rules, Rule("-p tcp", to, f"redirect-all-outgoing-to-proxy-port-{redirection.outbound_port}")]


def restore_lines(redirection: Redirection, version: int, saved: str = "") -> list[str]:
    """Input for `iptables-restore --noflush`, given what `iptables-save -t nat` says now.

    Naming a chain creates it or empties it; the jumps to our chains are added only where they are missing. The kernel
    takes the whole or nothing, so there is no moment at which half of the rules hold.
    """
    chains = (
        (INBOUND_CHAIN, inbound_rules(redirection, version)),
        (OUTBOUND_CHAIN, outbound_rules(redirection, version)),
    )
    lines = ["*nat", *(f":{chain} - [0:0]" for chain, _ in chains)]
    lines += [rule.line(chain) for chain, rules in chains for rule in rules]
    lines += [rule.line(builtin) for builtin, rule in _jumps() if not has_jump(saved, builtin, rule.target)]
    return [*lines, "COMMIT"]


def removal_lines(saved: str, sheds_builtins: bool) -> list[str]:
    """Input for `iptables-restore --noflush` that takes back whatever of ours a saved table holds; empty for none.

    With nft the built-in chains came with our first rule (`sheds_builtins`), so those with no other rule go as well.
    """
    jumps = [line for line in _lines(saved) if line.endswith((f"-j {INBOUND_CHAIN}", f"-j {OUTBOUND_CHAIN}"))]
    chains = [chain for chain in (INBOUND_CHAIN, OUTBOUND_CHAIN) if _declares(saved, chain)]
    if not jumps and not chains:
        return []
    others = [line for line in _lines(saved) if line.startswith("-A ") and line not in jumps]
    emptied = [builtin for builtin, rule in _jumps() if has_jump(saved, builtin, rule.target)]
    kept = {line.split()[1] for line in others}
    chains += [each for each in emptied if sheds_builtins and each not in kept and f":{each} ACCEPT" in saved]
    deleted = [f"-D{line.removeprefix('-A')}" for line in jumps]
    # Naming a chain empties it, and only an empty one can go.
    named = [f":{chain} - [0:0]" for chain in chains if chain in (INBOUND_CHAIN, OUTBOUND_CHAIN)]
    return ["*nat", *named, *deleted, *(f"-X {chain}" for chain in chains), "COMMIT"]


def has_jump(saved: str, builtin: str, chain: str) -> bool:
    """Whether a built-in chain already leads to ours."""
    return any(line.startswith(f"-A {builtin} ") and line.endswith(f"-j {chain}") for line in _lines(saved))


def missing(redirection: Redirection, version: int, saved: str) -> list[str]:
    """What a saved table lacks of the redirection, in words; empty where it is in place.

    Rules are compared by their comments, which name every parameter: iptables writes the matches back in its own way.
    """
    lacks = [f"jump {builtin} -> {r.target}" for builtin, r in _jumps() if not has_jump(saved, builtin, r.target)]
    for chain, rules in (
        (INBOUND_CHAIN, inbound_rules(redirection, version)),
        (OUTBOUND_CHAIN, outbound_rules(redirection, version)),
    ):
        found = [m[1] for line in _lines(saved) if line.startswith(f"-A {chain} ") and (m := _COMMENT.search(line))]
        if found != [f"proxy-init/{rule.comment}" for rule in rules]:
            lacks.append(f"rules of {chain}: {', '.join(found) or 'none'}")
    return lacks


def mentions_chains(saved: str) -> bool:
    """Whether an earlier run left its chains in this table."""
    return bool(_declares(saved, INBOUND_CHAIN) or _declares(saved, OUTBOUND_CHAIN))


def has_ipv6_address(if_inet6: str) -> bool:
    """Whether `/proc/net/if_inet6` lists an address that others reach: neither loopback (10) nor link-local (20)."""
    return any(
        len(columns) >= 4 and columns[3] not in ("10", "20") for columns in map(str.split, if_inet6.splitlines())
    )


def _skip(ports: str) -> Rule:
    return Rule(f"-p tcp -m multiport --dports {ports}", "RETURN", f"ignore-port-{ports}")


def _declares(saved: str, chain: str) -> list[str]:
    return [line for line in _lines(saved) if line.startswith(f":{chain} ")]


def _jumps() -> tuple[tuple[str, Rule], ...]:
    return (
        ("PREROUTING", Rule("", INBOUND_CHAIN, "install-proxy-init-prerouting")),
        ("OUTPUT", Rule("", OUTBOUND_CHAIN, "install-proxy-init-output")),
    )


def _lines(saved: str) -> list[str]:
    return [line.strip() for line in saved.splitlines()]
