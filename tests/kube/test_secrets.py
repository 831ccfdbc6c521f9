"""No private key of the mesh in any state, log, diff or event: searched for by value, not by name."""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from components.deploy.errors import ClusterError
from components.deploy.refs import Ref
from components.deploy.target import local_kubeconfig
from components.injector.certs import SECRET
from proxy.api import labels
from tests.kit.cluster import MESH, Kube

KEEPERS: Final = {
    (MESH, labels.ISSUER_SECRET): ("tls.key",),
    (labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET): ("tls.key",),
    (MESH, SECRET): ("ca.key", "tls.key"),
}
"""The only objects that may hold a private key of the mesh or of its webhook, and under which names."""
KINDS: Final = (
    ("v1", "Secret"), ("v1", "ConfigMap"), ("v1", "Event"), ("v1", "Pod"), ("v1", "Namespace"), ("v1", "Service"),
    ("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("coordination.k8s.io/v1", "Lease"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
)  # fmt: skip
CLUSTERS_OWN: Final = {"etcd", "kubelet", "containerd", "run", "pods"}
"""etcd is where Kubernetes keeps Secrets, and containers' mounts are those Secrets: both are the cluster itself."""
PIECE: Final = 8 * 1024 * 1024
OVERLAP: Final = 4096
"""Longer than any form of a key: one that lies across two pieces of a file is found in the second."""


def traces(pem: bytes) -> list[bytes]:
    """The ways in which one key could be written down: number, DER and PEM, in hex and base64."""
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    forms = [number, number.hex().encode(), base64.b64encode(number).rstrip(b"=")]
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        der = key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
        text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        # The first lines of every P-256 key begin alike. A Secret's data are the PEM text again in base64:
        # bytes 60 to 120
        # of it hold a part of the number, and at a multiple of three they are encoded alike wherever the text goes.
        forms += [der.hex().encode(), text.splitlines()[1], base64.b64encode(text[60:120])]
    return forms


def keys(kube: Kube) -> list[bytes]:
    pems = []
    for (namespace, name), entries in KEEPERS.items():
        secret = kube.get(Ref("v1", "Secret", namespace, name))
        assert secret is not None, f"{namespace}/{name} is where it belongs"
        pems += [base64.b64decode(secret["data"][entry]) for entry in entries]
    return [trace for pem in pems for trace in traces(pem)]


def objects_of(kube: Kube) -> Iterator[tuple[str, bytes]]:
    for api_version, kind in KINDS:
        for item in kube.list(api_version, kind):
            place = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
            if kind == "Secret" and place in KEEPERS:
                continue
            text = json.dumps(item).encode()
            decoded = (
                b"".join(base64.b64decode(v) for v in (item.get("data") or {}).values()) if kind == "Secret" else b""
            )
            yield f"{kind} {'/'.join(place)}", text + decoded


def logs_of(kube: Kube) -> Iterator[tuple[str, bytes]]:
    for pod in kube.list("v1", "Pod"):
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if namespace not in (MESH, labels.TRUST_NAMESPACE, "demo"):
            continue
        status = pod["status"]
        for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            where = f"log of {namespace}/{name}/{entry['name']}"
            if entry.get("containerID"):
                yield where, kube.logs(namespace, name, entry["name"]).encode()
            if entry.get("restartCount"):
                with contextlib.suppress(ClusterError):  # the kubelet keeps one earlier log, for a while
                    yield f"earlier {where}", kube.logs(namespace, name, entry["name"], previous=True).encode()


def files_of_this_tree() -> Iterator[tuple[str, bytes]]:
    root = Path(__file__).parents[2]
    state = local_kubeconfig(os.environ).parent
    for folder in (root / "build", state):
        for top, folders, names in os.walk(folder):
            folders[:] = sorted(set(folders) - CLUSTERS_OWN)
            for path in (Path(top, name) for name in sorted(names)):
                with contextlib.suppress(FileNotFoundError):  # the cluster lives on meanwhile
                    if path.is_file() and not path.is_symlink():
                        yield from ((str(path), piece) for piece in pieces(path))


def pieces(path: Path) -> Iterator[bytes]:
    """A file in bounded pieces that overlap."""
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield tail + piece
            tail = piece[-OVERLAP:]


def preview() -> Iterator[tuple[str, bytes]]:
    command = [sys.executable, "-m", "components.cli.main", "preview", "--stack", "local"]
    for form in ("text", "json"):
        done = subprocess.run([*command, "-o", form], capture_output=True, timeout=240, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr.decode()
        yield f"preview as {form}", done.stdout + done.stderr


def test_the_search_finds_a_key_where_there_is_one(kube: Kube) -> None:
    wanted = keys(kube)
    keeper = kube.get(Ref("v1", "Secret", MESH, labels.ISSUER_SECRET))
    assert any(trace in json.dumps(keeper).encode() for trace in wanted)
    another = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    told_apart = another + base64.b64encode(another)
    assert not any(trace in told_apart for trace in wanted), "another key is not mistaken for one of these"


def test_no_private_key_in_any_object_event_log_state_or_diff(kube: Kube) -> None:
    wanted = keys(kube)
    searched = 0
    found = []
    for source in (objects_of(kube), logs_of(kube), files_of_this_tree(), preview()):
        for place, data in source:
            searched += 1
            if any(trace in data for trace in wanted):
                found.append(place)
    assert found == []
    assert searched > 50
