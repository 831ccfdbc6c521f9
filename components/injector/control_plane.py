"""How the control plane's own pods get their proxies: pure. They are not injected by the webhook, which needs them to
run at all.

The stack calls `control_plane_pod` with the pod template of a component and declares what comes back.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from components.injector.config import InjectorConfig, ProxySettings
from components.injector.patch import Json, Owner, component_identity, inject_pod, service_address
from proxy.api import labels

API_SERVER_PORTS: Final = "443,6443"
"""Control-plane processes speak to the API server past the proxy: its TLS is not the mesh's, and it must work before
the mesh does.
"""


def served_by(config: InjectorConfig, revision: str) -> InjectorConfig:
    """The same configuration for proxies of a revision: they ask its identity and its destination.

    Said with what any injector knows, so that one of another version reads it too.
    """
    identity, destination = f"identity-{revision}", f"destination-{revision}"
    names = {
        "IDENTITY_SVC_NAME": component_identity(config, identity),
        "DESTINATION_SVC_NAME": component_identity(config, destination),
    }
    proxy = msgspec.structs.replace(
        config.proxy,
        identity_address=service_address(config, identity, labels.IDENTITY_PORT),
        destination_address=service_address(config, destination, labels.DESTINATION_PORT),
        extra_env={**config.proxy.extra_env, **names},
    )
    return msgspec.structs.replace(config, proxy=proxy)


def control_plane_settings(config: InjectorConfig, component: str) -> ProxySettings:
    """The mesh's settings as a component of the control plane needs them."""
    proxy = config.proxy
    skip_outbound = ",".join(filter(None, (proxy.skip_outbound_ports, API_SERVER_PORTS)))
    changes: dict[str, Any] = {"inbound_policy": "all-authenticated", "skip_outbound_ports": skip_outbound}
    if component == "identity":
        # Its proxy gets its own certificate from the process beside it, so neither may wait for the other.
        changes["identity_address"] = f"127.0.0.1:{labels.IDENTITY_PORT}"
        changes["tls_unauthenticated_ports"] = str(labels.IDENTITY_PORT)
        changes["wait"] = False
    elif component == "destination":
        changes["destination_address"] = f"127.0.0.1:{labels.DESTINATION_PORT}"
    elif component == "injector":
        # The API server is the caller, with the webhook's own TLS.
        changes["skip_inbound_ports"] = ",".join(filter(None, (proxy.skip_inbound_ports, str(labels.INJECTOR_PORT))))
    return msgspec.structs.replace(proxy, **changes)


def control_plane_pod(
    pod: Mapping[str, Any], config: InjectorConfig, component: str, *, owner: str = "", native_supported: bool = True
) -> Json:
    """A component's pod template with its proxy: native where that can be, identity's classic, since it must start
    beside its proxy. `owner` is its Deployment, where that is not called as the component is.
    """
    native = component != "identity" and native_supported and config.sidecar != "classic"
    settings = control_plane_settings(config, component)
    return inject_pod(pod, config, settings, native=native, owner=Owner("deployment", owner or component))
