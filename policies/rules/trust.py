"""Pure: rules about trust: the anchor, keys in plain, certificates in config."""

import base64
import binascii
import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Final

from policies.rules.model import CONFIG, Found, Parameters, Resource, Rule, texts, unknown

PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
CERTIFICATES: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def anchor_protected(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """Taking the stack down must not take the root of all identities with it."""
    for resource in resources:
        if resource.kind == "TrustAnchor" and not resource.protect:
            yield resource, "it is not protected", "Set trust.protect: true."


def no_private_key(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """No key in config or in anything that a state, a log or a diff can show."""
    remedy = "Keep keys in Secrets made inside the cluster, or in a secret config value (`pulumi config set --secret`)."
    for resource in resources:
        for path, text in texts(resource.properties):
            if PRIVATE_KEY.search(text) or PRIVATE_KEY.search(_decoded(text)):
                # The value itself is what must not be shown.
                yield resource, f"a private key stands at {path}", remedy


def certificates_current(resources: Sequence[Resource], parameters: Parameters, now: datetime.datetime) -> Found:
    """A certificate given by config is valid, and for long enough to be renewed by people."""
    margin = datetime.timedelta(days=parameters["days"])
    for resource in resources:
        if resource.type != CONFIG and resource.kind != "Mesh":
            continue
        for path, text in texts(resource.properties):
            for name, begin, end in _lives(text):
                if end <= now:
                    value = f"{path}: {name} expired on {end:%Y-%m-%d}"
                elif end - now < margin:
                    value = f"{path}: {name} expires on {end:%Y-%m-%d}, in less than {parameters['days']} days"
                elif begin > now:
                    value = f"{path}: {name} is valid only from {begin:%Y-%m-%d}"
                else:
                    continue
                yield resource, value, "Renew it, and put the new one into config."


def issuer_shorter(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """An issuer that outlives its anchor signs leaves that nobody accepts."""
    for resource in resources:
        if resource.kind != "Issuer":
            continue
        own = [text for key in ("certificate", "brought") if isinstance(text := resource.properties.get(key), str)]
        anchors = resource.properties.get("bundle")
        if not isinstance(anchors, str) or unknown(anchors):
            continue
        last = max((life[2] for life in _lives(anchors)), default=None)
        for text in own:
            for name, _begin, end in _lives(text):
                if last is not None and end > last:
                    value = f"issuer {name} ends on {end:%Y-%m-%d}, after the last anchor ({last:%Y-%m-%d})"
                    yield resource, value, "Have it signed for a shorter time, or rotate the anchor first."


def _decoded(text: str) -> str:
    """What a Secret's `data` would be in plain; empty for other text."""
    if len(text) < 64 or len(text) % 4:
        return ""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _lives(text: str) -> Iterator[tuple[str, datetime.datetime, datetime.datetime]]:
    """Subject, begin and end of every certificate in a text; what is no certificate is another check's business."""
    if "-----BEGIN CERTIFICATE-----" not in text:
        return
    from cryptography import x509

    for pem in CERTIFICATES.findall(text):
        try:
            found = x509.load_pem_x509_certificate(pem.encode())
        except ValueError:
            continue
        yield found.subject.rfc4514_string(), found.not_valid_before_utc, found.not_valid_after_utc


RULES: Final = (
    Rule("anchor-protected", "The trust anchor is protected.", anchor_protected),
    Rule("no-private-key", "No private key stands in config or in a resource.", no_private_key),
    Rule(
        "certificates-current", "Certificates in config are valid for long enough.", certificates_current, {"days": 30}
    ),
    Rule("issuer-shorter-than-anchor", "The issuer ends before its anchor.", issuer_shorter),
)
