"""The injector's configuration: written so that it reads back, and refused with the field that is wrong."""

import msgspec
import pytest

from components.injector.annotations import CHANGES, NATIVE_SIDECAR
from components.injector.config import (
    KNOWN_OVERRIDES,
    ConfigError,
    InjectorConfig,
    ProxySettings,
    decode_config,
    encode_config,
)

CONFIG = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1"))


def test_what_is_written_reads_back_and_is_stable() -> None:
    assert decode_config(encode_config(CONFIG)) == CONFIG
    assert encode_config(CONFIG) == encode_config(decode_config(encode_config(CONFIG)))


def test_every_known_annotation_has_a_meaning() -> None:
    assert {*CHANGES, NATIVE_SIDECAR} == set(KNOWN_OVERRIDES)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"proxy": {}}, "image"),
        ({"proxy": {"image": ""}}, "image"),
        ({"proxy": {"image": "p", "inboundPolicy": "all"}}, "inboundPolicy"),
        ({"proxy": {"image": "p", "colour": "red"}}, "colour"),
        ({"proxy": {"image": "p", "uid": 0}}, "uid"),
        ({"proxy": {"image": "p", "opaquePorts": "x"}}, "opaque_ports"),
        ({"proxy": {"image": "p", "shutdownGracePeriod": "2"}}, "shutdown_grace_period"),
        ({"proxy": {"image": "p", "adminPort": 4143}}, "three different ports"),
        ({"proxy": {"image": "p"}, "allowedOverrides": ["proxy-colour"]}, "proxy-colour"),
        ({"proxy": {"image": "p"}, "sidecar": "both"}, "sidecar"),
        ({"proxy": {"image": "p"}, "tokenLifetimeSeconds": 60}, "tokenLifetimeSeconds"),
    ],
)
def test_a_bad_configuration_names_the_field(raw: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        decode_config(msgspec.json.encode(raw))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ConfigError):
        decode_config(b"proxy: image")


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        CONFIG.proxy.image = "other"  # type: ignore[misc]
    assert msgspec.structs.replace(CONFIG.proxy, image="other").image == "other"
