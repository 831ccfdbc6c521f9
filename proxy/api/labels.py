"""Annotations, labels, ports and well-known names shared by the data plane, the control plane and the stack.

Only constants. The `linkerd.io` names are the contract users already have in their manifests (Linkerd,
`pkg/k8s/labels.go`).
"""

from typing import Final

INJECT: Final = "linkerd.io/inject"
"""Annotation on a Pod template or Namespace: `enabled`, `disabled` or `ingress` (refused until it is supported)."""
CONFIG_PREFIX: Final = "config.linkerd.io/"
"""Prefix of every per-workload setting; a Pod's own value wins over its Namespace's."""
MESHED_NAMESPACE: Final = "tulle.io/meshed"
"""Label (`enabled`) that lets the failurePolicy=Fail webhook select a Namespace, which an annotation cannot."""
REVISION: Final = "tulle.io/revision"
"""Label on a Namespace: which of the stack's revisions serves it, instead of the mesh's own control plane. On what a
revision is made of it says the same."""
ADMISSION_EXEMPT: Final = "config.linkerd.io/admission-webhooks"
"""Label on a Namespace; `disabled` exempts it from both webhooks."""
CONTROL_PLANE_NAMESPACE: Final = "linkerd.io/control-plane-ns"
"""Label on every injected Pod: the mesh namespace that serves it. Discovery treats a Pod without it as unmeshed."""
REDIRECT: Final = "tulle.io/redirect"
"""Annotation on every Pod that a CNI plugin is to redirect: the words that its init container would have had."""
PROXY_VERSION: Final = "linkerd.io/proxy-version"
"""Annotation on every injected Pod."""
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PART_OF: Final = "app.kubernetes.io/part-of"
COMPONENT: Final = "app.kubernetes.io/component"

PROXY_CONTAINER: Final = "linkerd-proxy"
INIT_CONTAINER: Final = "linkerd-init"
VALIDATOR_CONTAINER: Final = "linkerd-network-validator"
"""Stands in the init container's place where a CNI plugin sets the redirection."""
EXIT_NOT_REDIRECTED: Final = 95
"""With which it refuses a pod, as Linkerd's does."""
TOKEN_VOLUME: Final = "linkerd-identity-token"
BUNDLE_VOLUME: Final = "linkerd-trust-bundle"
BUNDLE_CONFIG_MAP: Final = "tulle-trust-bundle"
"""ConfigMap in the mesh namespace (the source) and, copied, in every meshed namespace."""
BUNDLE_KEY: Final = "ca-bundle.crt"
BUNDLE_DIR: Final = "/var/run/tulle/trust"
TOKEN_DIR: Final = "/var/run/tulle/token"
TOKEN_FILE: Final = "token"

MESH_NAMESPACE: Final = "tulle"
TRUST_NAMESPACE: Final = "tulle-trust"
ISSUER_SECRET: Final = "tulle-issuer"
"""Secret (kubernetes.io/tls) in the mesh namespace, readable by identity alone: `tls.crt` chain, `tls.key`,
`ca.crt`."""
ANCHOR_SECRET: Final = "tulle-trust-anchor"
"""Secret in the trust namespace: the anchor's `tls.crt` and `tls.key`; no workload may read it."""

OUTBOUND_PORT: Final = 4140
INBOUND_PORT: Final = 4143
TAP_PORT: Final = 4190
ADMIN_PORT: Final = 4191
PROXY_UID: Final = 2102
CONTROLLER_UID: Final = 2103
IDENTITY_PORT: Final = 8080
DESTINATION_PORT: Final = 8086
INJECTOR_PORT: Final = 8443
CONTROLLER_ADMIN_PORT: Final = 9990
"""`/live`, `/ready` and `/metrics` of each control-plane process, plaintext behind its proxy."""

DEFAULT_OPAQUE_PORTS: Final = "25,587,3306,4444,5432,6379,9300,11211"
"""Ports where the server speaks first, or whose protocol gains nothing from detection (Linkerd's defaults)."""

INBOUND_POLICIES: Final = (
    "all-unauthenticated",
    "all-authenticated",
    "cluster-unauthenticated",
    "cluster-authenticated",
    "deny",
    "audit",
)
