"""The default inbound policies. Pure: who may connect, decided from what is known of the client.

The six names and what they mean are Linkerd's (`config.linkerd.io/default-inbound-policy`); they are set at injection
and enforced with
no controller. Loopback is always let in, because it is the pod itself.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class Unauthorized(Exception):
    """The policy refuses this client; the message says what it would have needed."""


class Authorization(NamedTuple):
    """Why a client was let in: becomes the `authz_*` labels."""

    kind: str
    name: str


class ClientInfo(NamedTuple):
    """What the policy looks at: `ip` as text, `identity` proven by mTLS or empty."""

    ip: str
    identity: str


def authorize(policy: str, cluster_networks: Sequence[Network], client: ClientInfo) -> Authorization:
    """Let `client` in under `policy` or raise Unauthorized."""
    address = ip_address(client.ip)
    if address.is_loopback:
        return Authorization("default", "loopback")
    if policy == "deny":
        raise Unauthorized("the default policy of this port is deny")
    if policy in ("all-authenticated", "cluster-authenticated") and not client.identity:
        raise Unauthorized(f"{policy}: the client has no mesh identity")
    if policy in ("cluster-authenticated", "cluster-unauthenticated") and not any(
        address in network for network in cluster_networks if network.version == address.version
    ):
        raise Unauthorized(f"{policy}: {client.ip} is not in the cluster's networks")
    return Authorization("default", policy)
