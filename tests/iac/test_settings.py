"""Settings: every key has type, default and sentence, and each wrong value gets one error that names it and the way
out.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from components.deploy import project
from components.deploy.errors import DeployError
from components.deploy.refs import Target
from components.deploy.target import choose
from components.forms import FORMS, amount
from components.settings import read, values
from tests.iac.kit import ENVIRONMENT, ROOT, arguments, config


def test_every_key_has_a_type_a_default_and_a_sentence() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert declared
    for key, entry in declared.items():
        assert entry["type"] in ("string", "integer", "boolean", "array", "object"), key
        assert "default" in entry, key
        assert entry["description"].endswith("."), key
        assert entry["description"][0].isupper(), key


@pytest.mark.parametrize("stack", ["local", "dev", "prod"])
def test_each_stack_of_the_project_is_usable(stack: str) -> None:
    settings = arguments(stack)
    assert settings["names"]["mesh_namespace"] == "tulle"
    assert settings["replicas"] == (3 if stack == "prod" else 1)
    assert settings["trust"]["protect"] is (stack == "prod")


def test_schema_and_forms_have_the_same_keys_in_the_same_order() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert list(FORMS) == list(declared)
    read(config(), "local", ENVIRONMENT)


def test_every_default_is_allowed_and_every_form_says_what_it_allows() -> None:
    assert set(values(config())) == set(FORMS)
    for key, form in FORMS.items():
        assert len(form.allowed) > 8, key


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("replicas", "0", "an integer from 1 to 9"),
        ("meshNamespace", "Tulle", "DNS label"),
        ("trustDomain", "a..b", "DNS name"),
        ("trustNamespace", "tulle", "another one than meshNamespace"),
        ("identity.leafLifetime", "1 day", "duration"),
        ("proxy.inboundPolicy", "allow", "all-unauthenticated"),
        ("proxy.opaquePorts", "25,70000", "port ranges"),
        ("proxy.opaquePorts", "90-80", "port ranges"),
        ("proxy.clusterNetworks", "10.0.0.0/33", "networks"),
        ("proxy.memoryLimit", "lots", "quantity"),
        ("proxy.memoryLimit", "16Mi", "at least proxy.memoryRequest (32Mi)"),
        ("identity.leafLifetime", "30s", "at least 60s"),
        ("adoptedNamespaces", '["tulle"]', "none of kube-system"),
        ("trust.issuerSecret", "A b", "the name of a Secret"),
        ("trust.anchors", "[]", "different integers from 1 to 99"),
        ("trust.anchors", "[1, 1]", "different integers"),
        ("trust.anchors", "[0]", "from 1"),
        ("trust.signer", "2", "one of trust.anchors ([1])"),
        ("images.tag", "a b", "image tag"),
        ("trust.protect", "yes", "true or false"),
        ("demo.rate", "-1", "from 0 to 10000"),
        ("images.pullSecret", "a b", "name of a Secret"),
        ("proxy.allowedOverrides", '["proxy-colour"]', "proxy-cpu-limit"),
        ("labels", '{"app": "web"}', "none of app"),
        ("labels", '{"tulle.io/team": "web"}', "tulle.io/*"),
        ("labels", '{"-team": "web"}', "Kubernetes labels"),
        ("images.digests", '{"proxy": "abc"}', "sha256"),
        ("images.refs", '{"proxi": "abc"}', "proxy, control, prometheus"),
        ("images.pullPolicy", "Sometimes", "Always"),
        ("meshedNamespaces", '["kube-system"]', "kube-system"),
        ("prometheus.url", "prometheus:9090", "http(s)"),
        ("prometheus.retention", "forever", "duration"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(key: str, value: str, wanted: str) -> None:
    with pytest.raises(DeployError) as caught:
        read({**config(), f"tulle:{key}": value}, "local", ENVIRONMENT)
    text = str(caught.value)
    assert key in text
    assert wanted in text
    assert "-c " in text
    # Of a list or an object of texts the one bad item is named, of anything else the whole value.
    items = json.loads(value) if value.startswith(('["', '{"')) else [value]
    assert next(iter(items)) in text


def test_a_kept_issuer_needs_its_bundle_and_excludes_a_brought_one() -> None:
    with pytest.raises(DeployError, match=r"trust.bundle is '', but must be the anchors behind trust.issuerSecret"):
        arguments("existing")
    assert arguments("existing", trust_bundle="PEM")["trust"]["issuer_secret"] == "mesh-issuer"
    with pytest.raises(DeployError, match=r"empty where trust.issuerCertificate is set"):
        arguments("existing", trust_bundle="PEM", trust_issuerCertificate="PEM")


def test_a_refused_value_does_not_fill_the_terminal() -> None:
    with pytest.raises(DeployError) as caught:
        read({**config(), "tulle:images.tag": "x y" * 2000}, "local", ENVIRONMENT)
    assert len(str(caught.value)) < 400


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(DeployError, match=r"unknown config key 'replica'\n.*'replicas'"):
        config(replica="3")
    with pytest.raises(DeployError, match="unknown config key 'colour'"):
        read({**config(), "tulle:colour": "red"}, "local", ENVIRONMENT)


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [("replicas", "three", "integer"), ("replicas", "true", "integer"), ("demo.enabled", "maybe", "boolean")],
)
def test_an_ill_typed_value_names_key_value_and_type(key: str, value: str, kind: str) -> None:
    with pytest.raises(DeployError) as caught:
        project.load(ROOT).config("local", {key: value})
    assert key in str(caught.value)
    assert kind in str(caught.value)


def test_a_stack_file_is_checked_like_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  tulle:replicas: many\n")
    with pytest.raises(DeployError, match=r"Pulumi.x.yaml: config key replicas is 'many', which is no integer"):
        project.load(tmp_path).config("x", {})


def test_an_unknown_stack_names_the_known_ones() -> None:
    with pytest.raises(DeployError, match=r"no stack 'staging'.*\n.*dev, existing, local, prod"):
        project.load(ROOT).config("staging", {})


def test_a_secret_in_plain_text_in_a_stack_file_is_refused_and_not_printed(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  tulle:trust.issuerKey: hunter2hunter2\n")
    with pytest.raises(DeployError, match=r"trust.issuerKey is a secret") as caught:
        project.load(tmp_path).config("x", {})
    assert "hunter2" not in str(caught.value)


def test_pulumis_passphrase_encryption_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64
    import os

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    salt, nonce = os.urandom(8), os.urandom(12)
    key = PBKDF2HMAC(SHA256(), 32, salt, project.ROUNDS).derive(b"correct horse")
    sealed = AESGCM(key).encrypt(nonce, b"the key", None)
    secure = f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    document = {
        "encryptionsalt": f"v1:{base64.b64encode(salt).decode()}:v1:x:y",
        "config": {"tulle:trust.issuerKey": {"secure": secure}},
    }
    (tmp_path / "Pulumi.x.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.delenv(project.PASSPHRASE, raising=False)
    with pytest.raises(DeployError, match=f"Set {project.PASSPHRASE}"):
        project.load(tmp_path).config("x", {})
    monkeypatch.setenv(project.PASSPHRASE, "wrong")
    with pytest.raises(DeployError, match="wrong passphrase"):
        project.load(tmp_path).config("x", {})
    monkeypatch.setenv(project.PASSPHRASE, "correct horse")
    found = project.load(tmp_path).config("x", {})
    assert found.values["tulle:trust.issuerKey"] == "the key"
    assert "tulle:trust.issuerKey" in found.secret_keys


def test_a_value_can_come_from_a_file(tmp_path: Path) -> None:
    refs = {"proxy": "localhost/tulle/proxy:abc", "control": "x:1", "prometheus": "y:2"}
    (tmp_path / "images.json").write_text(json.dumps(refs))
    settings = arguments(images_refs=f"@{tmp_path}/images.json")
    assert settings["images"]["proxy"] == "localhost/tulle/proxy:abc"
    assert settings["images"]["version"] == "abc"
    with pytest.raises(DeployError, match="No such file"):
        config(images_refs="@/does/not/exist")


def test_images_are_pinned_by_digest() -> None:
    digest = "sha256:" + "0" * 64
    images = arguments(images_registry="registry.example/mesh/", images_digests=json.dumps({"proxy": digest}))["images"]
    assert images["proxy"] == f"registry.example/mesh/proxy@{digest}"
    assert images["control"] == "registry.example/mesh/control:0.1.0"


def test_only_the_local_stack_has_a_cluster_by_itself() -> None:
    assert choose("local", {}, "", "", ENVIRONMENT) == Target("/state/kubeconfig", "tulle-local")
    with pytest.raises(DeployError, match=r"stack 'prod' names no cluster\n  Pass --context"):
        choose("prod", {}, "", "", {**ENVIRONMENT, "KUBECONFIG": "/k"})
    assert choose("prod", {}, "blue", "", {**ENVIRONMENT, "KUBECONFIG": "/k:/l"}) == Target("/k", "blue")
    assert choose("prod", {"kubernetes:context": "green"}, "", "/f", ENVIRONMENT) == Target("/f", "green")
    assert choose("prod", {}, "blue", "", ENVIRONMENT).kubeconfig == "/home/someone/.kube/config"


def test_a_malformed_override_is_explained() -> None:
    with pytest.raises(DeployError, match="key=value"):
        project.overrides(["replicas"])
    assert project.overrides(["a=b=c"]) == {"a": "b=c"}


def test_the_project_is_found_from_anywhere(tmp_path: Path) -> None:
    assert project.find(tmp_path).root == ROOT
    assert project.find(ROOT / "components" / "deploy").root == ROOT
    assert dataclasses.is_dataclass(project.find(tmp_path))


def test_quantities_are_numbers() -> None:
    assert [amount(text) for text in ("10m", "2", "1.5", "1k", "32Mi", "1Gi", "2G")] == [
        *(0.01, 2, 1.5, 1000, 32 * 2**20, 2**30, 2e9)
    ]
