"""Writes down what a release says to others: the schema of its API, a message of each kind, and what its injector gives
a proxy. Runs in the source tree of that release (`python -c`), so it knows no module of this one.

`python -m tests.kit.pinned` writes it to `tests/unit/golden/pinned.json`, where tests without history find it.
"""

import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, json_format

from proxy.api import destination_pb2, identity_pb2, labels

FILES = (destination_pb2, identity_pb2)
PODS = ("every-setting", "full-native", "full-classic", "control-plane-identity")
DOWNWARD = {
    "metadata.name": "web-1",
    "metadata.namespace": "demo",
    "status.podIPs": "10.0.0.1,fd00::1",
    "spec.nodeName": "node-1",
    "spec.serviceAccountName": "web",
}


def filled(message: Any, text: str = "a") -> Any:
    """A message with something in each of its fields; of a oneof the last one stays."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["key"] = "value"
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            filled(inner.add() if field.is_repeated else inner, text + "a")
        else:
            address = "10.0.0.7:8080" if field.name in ("address", "remove") else text
            kinds = {field.TYPE_STRING: address, field.TYPE_BYTES: text.encode(), field.TYPE_BOOL: True}
            value = kinds.get(field.type, 1)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def container(pod: Any, name: str) -> Any:
    return next(each for each in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]] if each["name"] == name)


def pods() -> dict[str, Any]:
    """By case, the proxy's environment as the kubelet would fill it in, and the redirection's arguments."""
    found = {}
    for name in PODS:
        pod = json.loads((Path("tests/unit/golden/injector") / f"{name}.json").read_text())
        environment = {
            each["name"]: DOWNWARD[each["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in each else each["value"]
            for each in container(pod, labels.PROXY_CONTAINER)["env"]
        }
        arguments = container(pod, labels.INIT_CONTAINER)["args"]
        found[name] = {"environment": environment, "redirect": arguments}
    return found


def record() -> dict[str, Any]:
    """All of it."""
    schema = descriptor_pb2.FileDescriptorSet()
    messages = {}
    for module in FILES:
        module.DESCRIPTOR.CopyToProto(schema.file.add())
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            kind = getattr(module, descriptor.name)
            found = {"": filled(kind())}
            for choice in [field for one in descriptor.oneofs for field in one.fields]:
                found[f"/{choice.name}"] = kind()
                filled(getattr(found[f"/{choice.name}"], choice.name))
            for suffix, message in found.items():
                messages[descriptor.full_name + suffix] = {
                    "bytes": message.SerializeToString(deterministic=True).hex(),
                    "value": json_format.MessageToDict(message, preserving_proto_field_name=True),
                }
    text = base64.b64encode(schema.SerializeToString(deterministic=True)).decode()
    return {"schema": text, "messages": messages, "pods": pods()}


if __name__ == "__main__":
    print(json.dumps(record(), indent=1, sort_keys=True))
