"""What the stack declares of trust: anchor and issuer as dynamic resources, the bundle as a ConfigMap.

No private key is an input or an output of anything here. A dynamic provider makes or reads keys and hands them to the
cluster itself; a brought issuer's key it takes from the stack's config when it is configured.
"""

import contextlib
import datetime
import hashlib
from collections.abc import Iterator
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from components.args import CertificateAuthorityArgs
from components.forms import seconds
from components.keeper.resource import Bootstrap
from components.trust.objects import anchor_name
from components.workload import labels_of
from proxy.api import labels

ISSUER_KEY = "trust.issuerKey"
REPLACE = (
    "Replace the anchor at once: deploy with -c trust.anchors=[N] -c trust.signer=N -c trust.force=true, where N is a "
    "number not used yet; proxies then ask for new certificates by themselves."
)


class AnchorProvider(ResourceProvider):
    """Makes the anchor once; adopts the one that is there."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make or adopt."""
        from components.trust import authority
        from components.trust.vault import Vault

        with explained(), Vault(props) as vault:
            certificate = vault.ensure_anchor(
                props["namespace"],
                _anchor(props),
                props["mesh_namespace"],
                props["trust_domain"],
                datetime.datetime.now(datetime.UTC),
            )
        outs = {**props, "certificate": certificate, "not_after": authority.not_after(certificate)}
        return CreateResult(f"{props['namespace']}/{_anchor(props)}", outs)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Nothing changes an anchor; another name for the mesh would need another one."""
        replaces = [key for key in ("namespace", "mesh_namespace", "trust_domain") if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(replaces), replaces=replaces)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Remove the Secret."""
        from components.trust.vault import Vault

        with Vault(props) as vault:
            vault.remove(props["namespace"], _anchor(props))


class IssuerProvider(ResourceProvider):
    """Gives identity an issuer: signed by the anchor, or brought."""

    serialize_as_secret_always = False

    def __init__(self) -> None:
        self._key = ""

    def __getstate__(self) -> dict[str, Any]:
        """A serialised provider is part of the state: it must not know the key."""
        return {"_key": ""}

    def configure(self, req: ConfigureRequest) -> None:
        """Take a brought issuer's key from config, never from inputs."""
        self._key = str(req.config.get(ISSUER_KEY) or "")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Sign or store; an issuer that a killed run left is kept if it fits."""
        from components.trust.vault import Vault

        with Vault(props) as vault:
            found = vault.issuer_certificate(props["namespace"])
            certificate = found if self._fits(found, props) else self._issue(vault, props)
        return CreateResult(f"{props['namespace']}/{labels.ISSUER_SECRET}", self._outs(certificate, props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Sign or store anew."""
        from components.trust.vault import Vault

        with Vault(props) as vault:
            return UpdateResult(self._outs(self._issue(vault, props), props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another anchor, another brought issuer, a missing Secret, or the last quarter of the issuer's life (which the
        keeper lets nobody see). What the keeper has renewed fits, so it is no difference.
        """
        from components.trust.vault import Vault

        replaces = ["namespace"] if olds.get("namespace") != news.get("namespace") else []
        with Vault(news) as vault:
            fits = self._fits(vault.issuer_certificate(news["namespace"]), news)
        changed = any(olds.get(key) != news.get(key) for key in ("bundle", "brought", "key_hash", "trust_domain"))
        return DiffResult(changes=bool(replaces) or changed or not fits, replaces=replaces)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Remove the Secret."""
        from components.trust.vault import Vault

        with Vault(props) as vault:
            vault.remove(props["namespace"], labels.ISSUER_SECRET)

    def _issue(self, vault: Any, props: dict[str, Any]) -> str:
        with explained():
            return self._issued(vault, props)

    def _issued(self, vault: Any, props: dict[str, Any]) -> str:
        from components.trust.authority import KeyPair, make_issuer

        if props.get("brought"):
            issuer, name = KeyPair(props["brought"], self._key), ""
        else:
            name = _anchor(props)
            anchor = vault.anchor(props["anchor_namespace"], name)
            now, life = datetime.datetime.now(datetime.UTC), _lifetime(props)
            issuer = make_issuer(anchor, props["namespace"], props["trust_domain"], now, life)
        vault.write_issuer(props["namespace"], issuer, props["bundle"], name)
        return issuer.certificate

    def _fits(self, certificate: str, props: dict[str, Any]) -> bool:
        from components.trust.authority import issuer_fits

        if not certificate:
            return False
        if props.get("brought"):
            return bool(certificate == props["brought"])
        return issuer_fits(certificate, props["bundle"], datetime.datetime.now(datetime.UTC))

    def _outs(self, certificate: str, props: dict[str, Any]) -> dict[str, Any]:
        from components.trust.authority import fingerprint, not_after

        return {
            **props,
            "certificate": certificate,
            "not_after": not_after(certificate),
            "fingerprint": fingerprint(certificate),
        }


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What is wrong with a certificate, as an error with the way out."""
    from components.deploy.errors import DeployError
    from components.trust.authority import AuthorityError

    try:
        yield
    except AuthorityError as error:
        problem = str(error).rpartition(": ")[0] or str(error)
        raise DeployError(problem, REPLACE) from None


def _anchor(props: dict[str, Any]) -> str:
    return str(props.get("secret") or labels.ANCHOR_SECRET)


def _lifetime(props: dict[str, Any]) -> datetime.timedelta:
    from components.trust.authority import ISSUER_LIFETIME

    return datetime.timedelta(seconds=props["lifetime"]) if "lifetime" in props else ISSUER_LIFETIME


class TrustAnchor(Resource, module="tulle", name="TrustAnchor"):
    """The root of all identities; its key stays in a Secret that no workload may read."""

    certificate: pulumi.Output[str]
    """PEM of the certificate, public."""
    not_after: pulumi.Output[str]
    """When it expires."""

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(AnchorProvider(), name, {**props, "certificate": None, "not_after": None}, opts)


class Issuer(Resource, module="tulle", name="Issuer"):
    """What identity signs leaves with."""

    certificate: pulumi.Output[str]
    """PEM of the certificate, public."""
    not_after: pulumi.Output[str]
    """When it expires."""
    fingerprint: pulumi.Output[str]
    """SHA-256 of the certificate."""

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        unset = {"certificate": None, "not_after": None, "fingerprint": None}
        super().__init__(IssuerProvider(), name, {**props, **unset}, opts)


class RotationProvider(ResourceProvider):
    """Lets a change of anchors or signer through only when every running meshed pod is ready for it."""

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse, in previews too, a step that would part pods from one another."""
        from components.deploy import wire

        known = not wire.has_unknown({key: news.get(key) for key in ("namespace", "bundle", "signer")})
        reason = None if news.get("force") or not known else self._refusal(news)
        return CheckResult(news, [CheckFailure("trust.anchors", reason)] if reason else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Nothing is made: the step is the others'."""
        return CreateResult(str(props["namespace"]), dict(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """The step was let through."""
        return UpdateResult(dict(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Other anchors, or another signer."""
        return DiffResult(changes=any(olds.get(key) != news.get(key) for key in ("bundle", "signer")))

    def _refusal(self, props: dict[str, Any]) -> str | None:
        from components.deploy.cluster import Cluster
        from components.deploy.refs import Target
        from components.trust import inspection
        from components.trust.rotation import Trust, refusal

        wanted = inspection.trust_of(props["bundle"], "")
        signer = inspection.trust_of(props["signer"], "")
        namespace = str(props["namespace"])
        with contextlib.closing(Cluster(Target(str(props["kubeconfig"]), str(props["context"])))) as cluster:
            live, bundle = inspection.live_trust(cluster, namespace)
            reason = refusal(
                live,
                Trust(wanted.anchors, next(iter(signer.anchors), "")),
                bundle,
                inspection.running_pods(cluster, namespace),
                inspection.reported(cluster, namespace),
            )
        way_out = "Wait, then run again (`tulle check` counts the reports); trust.force goes on, and breaks those pods"
        return f"{reason}. {way_out}" if reason else None


class Rotation(Resource, module="tulle", name="TrustRotation"):
    """Stands between the anchors and everything that uses them."""

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(RotationProvider(), name, props, opts)


class CertificateAuthority(pulumi.ComponentResource):
    """Anchor, issuer, and the bundle ConfigMap in the mesh namespace, from which the injector keeps the copies."""

    bundle: pulumi.Output[str]
    """PEM of all anchors, public."""

    def __init__(self, name: str, args: CertificateAuthorityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:CertificateAuthority", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        # What must be there before anything else touches the trust material.
        self.made: list[pulumi.Resource] = []
        mesh = args["mesh"]
        trust, names = mesh["trust"], mesh["names"]
        if trust["issuer_secret"]:
            # Somebody else makes and renews the issuer; what is declared is what proxies trust.
            self.bundle = pulumi.Output.from_input(check_further(trust["bundle"]))
            self._publish(name, args, [])
            self.register_outputs({"bundle": self.bundle})
            return
        if mesh["rendered"]:
            self._render(name, args)
            return
        place = {"kubeconfig": mesh["cluster"]["kubeconfig"], "context": mesh["cluster"]["context"]}
        common = {**place, "trust_domain": names["trust_domain"]}
        lifetime = seconds(trust["issuer_lifetime"])
        issuer = {**common, "namespace": args["mesh_namespace"], "lifetime": lifetime}
        if trust["issuer_certificate"]:
            check_brought(trust["issuer_certificate"], trust["issuer_key"], trust["bundle"])
            self.bundle = pulumi.Output.from_input(trust["bundle"])
            issuer |= {
                "bundle": trust["bundle"],
                "brought": trust["issuer_certificate"],
                # A hash of a 256-bit key gives nothing away, and makes a new key under the same certificate a change.
                "key_hash": hashlib.sha256(trust["issuer_key"].encode()).hexdigest(),
            }
        else:
            props = {**common, "namespace": args["trust_namespace"], "mesh_namespace": names["mesh_namespace"]}
            protected = pulumi.ResourceOptions(parent=self, protect=trust["protect"])
            anchors = {
                number: TrustAnchor(
                    f"{name}-anchor" if number == 1 else f"{name}-anchor-{number}",
                    {**props, "secret": anchor_name(number)},
                    protected,
                ).certificate
                for number in trust["anchors"]
            }
            signer, further = trust["signer"], check_further(trust["bundle"])
            # The signer's first: when it changes so does the bundle's hash, and proxies ask for new certificates soon.
            order = [signer, *(number for number in trust["anchors"] if number != signer)]
            self.bundle = pulumi.Output.concat(*(anchors[number] for number in order), further)
            issuer |= {
                "bundle": anchors[signer],
                "anchor_namespace": args["trust_namespace"],
                "secret": anchor_name(signer),
            }
            step = {**place, "namespace": args["mesh_namespace"], "bundle": self.bundle, "signer": anchors[signer]}
            guard = Rotation(f"{name}-rotation", {**step, "force": trust["force"]}, child)
            child = pulumi.ResourceOptions(parent=self, depends_on=[guard])
        self.made = [Issuer(f"{name}-issuer", issuer, child)]
        # After the issuer: who hears of a new bundle asks for a certificate, and is to get one of the new issuer.
        self._publish(name, args, self.made)
        self.register_outputs({"bundle": self.bundle})

    def _publish(self, name: str, args: CertificateAuthorityArgs, after: list[pulumi.Resource]) -> None:
        k8s.core.v1.ConfigMap(
            f"{name}-bundle",
            metadata={
                "name": labels.BUNDLE_CONFIG_MAP,
                "namespace": args["mesh_namespace"],
                "labels": labels_of("trust"),
            },
            data={labels.BUNDLE_KEY: self.bundle},
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )

    def _render(self, name: str, args: CertificateAuthorityArgs) -> None:
        """Declare what can be printed: a Job for own material, the public half of a brought one."""
        trust = args["mesh"]["trust"]
        self.bundle = pulumi.Output.from_input(trust["bundle"])
        if trust["issuer_certificate"]:
            # The key is not printed, so whoever applies the manifest makes the issuer's Secret.
            check_further(trust["bundle"])
            self._publish(name, args, [])
            self.register_outputs({"bundle": self.bundle})
            return
        check_further(trust["bundle"])
        if trust["anchors"] != [1]:
            raise pulumi.RunError(
                f"trust.anchors is {trust['anchors']}, but what is rendered knows the first anchor alone\n"
                "  Rotate with `tulle up` or `pulumi up`, which see to it that each step is safe."
            )
        Bootstrap(f"{name}-bootstrap", args, pulumi.ResourceOptions(parent=self))
        self.register_outputs({})


def check_further(bundle: str) -> str:
    """Anchors to trust beside the stack's own, as they are appended to it; refuses what holds none."""
    from components.trust.authority import AuthorityError, load_bundle

    if not bundle.strip():
        return ""
    try:
        load_bundle(bundle)
    except AuthorityError as error:
        raise pulumi.RunError(str(error)) from None
    return bundle.strip() + "\n"


def check_brought(certificate: str, key: str, bundle: str) -> None:
    """Refuse an issuer that could not serve, before anything is changed."""
    from components.trust.authority import AuthorityError, KeyPair, check_issuer

    missing = [name for name, text in (("trust.issuerKey", key), ("trust.bundle", bundle)) if not text]
    if missing:
        raise pulumi.RunError(
            f"trust.issuerCertificate is set, but {missing[0]} is not\n  Set it too: it needs all three."
        )
    try:
        check_issuer(KeyPair(certificate, key), bundle, datetime.datetime.now(datetime.UTC))
    except AuthorityError as error:
        problem, _, way_out = str(error).rpartition(": ")
        raise pulumi.RunError(f"{problem}\n  To put it right: {way_out}.") from None
