"""Who may ask discovery for what. Pure: the proven identity and the question in, nothing or a refusal out."""

from components.destination.model import Mesh
from proxy.api.names import InvalidNameError, parse_dns_name


class CallerError(Exception):
    """The caller is not the workload it asks for; the message says who it is."""


def check_caller(identity: str | None, namespace: str, mesh: Mesh) -> None:
    """Raise CallerError unless `identity` may ask as a workload of `namespace`.

    `identity` is what the proxy in front of this process has seen proven (`l5d-client-id`); None for a connection that
    came through no proxy, as this pod's own. The proxy names the caller of every HTTP/2 request it parses. It does not
    of a connection it carries as opaque, so this keeps workloads to themselves only as far as they speak plain HTTP/2.
    """
    if identity is None:
        return
    try:
        caller = parse_dns_name(identity, mesh.namespace, mesh.trust_domain)
    except InvalidNameError as error:
        raise CallerError(f"the caller is no workload of this mesh: {error}") from error
    if caller.namespace != namespace:
        raise CallerError(f"{identity} asked as a workload of namespace {namespace!r}, not of its own")
