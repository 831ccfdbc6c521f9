"""What the stack declares of machines outside the cluster: the kind ExternalWorkload."""

from typing import Any, Final, cast

import pulumi
import pulumi_kubernetes as k8s

from components.workload import labels_of

GROUP: Final = "workload.linkerd.io"
VERSION: Final = "v1beta1"
KIND: Final = "ExternalWorkload"

_TEXT: Final = {"type": "string"}
_TIME: Final = {"type": "string", "format": "date-time"}


def _object(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {}), **more}


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


SCHEMA: Final = _object(
    {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"type": "object"},
        "spec": _object(
            {
                "meshTLS": _object(
                    {
                        "identity": {**_TEXT, "maxLength": 253, "pattern": "^spiffe://", "description": "SPIFFE ID"},
                        "serverName": {**_TEXT, "maxLength": 253, "description": "name that peers ask for"},
                    },
                    "identity",
                    "serverName",
                ),
                "workloadIPs": _list(_object({"ip": _TEXT}, "ip"), maxItems=1),
                "ports": _list(
                    _object(
                        {
                            "name": {**_TEXT, "maxLength": 15},
                            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                            "protocol": {**_TEXT, "default": "TCP"},
                        },
                        "port",
                    ),
                ),
            },
            "meshTLS",
        ),
        "status": _object(
            {
                "conditions": _list(
                    _object(
                        {
                            **dict.fromkeys(("type", "status", "reason", "message"), _TEXT),
                            **dict.fromkeys(("lastProbeTime", "lastTransitionTime"), _TIME),
                        },
                        "type",
                        "status",
                    ),
                    **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
                ),
                "join": _object(
                    {
                        "tokenSHA256": _TEXT,
                        "tokenExpires": _TEXT,
                        "tokenUsed": {"type": "boolean"},
                        "keySHA256": _TEXT,
                        "joined": _TEXT,
                    },
                    description="the join token, as a hash, and the key it was spent on",
                ),
            }
        ),
    },
    "spec",
)
"""Linkerd's, and `status.join`, which is how a machine joins here."""


class ExternalWorkloads(pulumi.ComponentResource):
    """The kind, which destination reads and identity certifies."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:ExternalWorkloads", name, {}, opts)
        columns = {
            "Identity": ".spec.meshTLS.serverName",
            "Address": ".spec.workloadIPs[0].ip",
            "Ready": ".status.conditions[?(@.type=='Ready')].status",
        }
        spec = {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": KIND, "plural": "externalworkloads", "singular": "externalworkload"},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": SCHEMA},
                    "additionalPrinterColumns": [
                        {"name": column, "type": "string", "jsonPath": path} for column, path in columns.items()
                    ],
                }
            ],
        }
        k8s.apiextensions.v1.CustomResourceDefinition(
            f"{name}-kind",
            metadata={"name": f"externalworkloads.{GROUP}", "labels": labels_of("external")},
            # Already in Kubernetes' own spelling, which the SDK passes on as it is.
            spec=cast(k8s.apiextensions.v1.CustomResourceDefinitionSpecArgsDict, spec),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
