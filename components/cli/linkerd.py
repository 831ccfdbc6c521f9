"""`tulle adopt-linkerd`: reads a Linkerd installation and prints the plan of its move; with --yes it makes the two
preparations of it, and moves nothing.

Of the issuer's Secret only the certificate is kept; the key leaves this module in no form. What maps to what does not
belong here.
"""

import contextlib
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import yaml

from components.cli.moving import Certificate, Installation, Namespace, Plan, plan
from components.cli.output import output_option, print_json, print_table
from components.cli.target import find_target
from components.deploy import project
from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError, DeployError
from components.deploy.project import Project
from components.deploy.refs import Manifest, Ref
from components.trust import authority, objects
from components.trust.authority import AuthorityError
from proxy.api import labels

WEBHOOKS: Final = Ref(
    "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config"
)
ISSUER: Final = "linkerd-identity-issuer"
EXTENSION: Final = "linkerd.io/extension"
CERT_MANAGER: Final = "cert-manager.io/certificate-name"
KINDS: Final = (
    ("policy.linkerd.io", "Server", ("v1beta3", "v1beta2", "v1beta1")),
    ("policy.linkerd.io", "ServerAuthorization", ("v1beta1",)),
    ("policy.linkerd.io", "AuthorizationPolicy", ("v1alpha1",)),
    ("policy.linkerd.io", "MeshTLSAuthentication", ("v1alpha1",)),
    ("policy.linkerd.io", "NetworkAuthentication", ("v1alpha1",)),
    ("policy.linkerd.io", "HTTPRoute", ("v1beta3", "v1beta2", "v1beta1", "v1alpha1")),
    ("policy.linkerd.io", "HTTPLocalRateLimitPolicy", ("v1alpha1",)),
    ("policy.linkerd.io", "EgressNetwork", ("v1alpha1",)),
    ("gateway.networking.k8s.io", "HTTPRoute", ("v1", "v1beta1")),
    ("gateway.networking.k8s.io", "GRPCRoute", ("v1", "v1alpha2")),
    ("linkerd.io", "ServiceProfile", ("v1alpha2",)),
)
"""Group, kind, and its versions, newest first."""
LEAVE: Final = {"key": labels.MESHED_NAMESPACE, "operator": "NotIn", "values": ["enabled"]}
"""What keeps Linkerd's injector away from namespaces of this mesh."""


@click.command("adopt-linkerd")
@click.option("--linkerd-namespace", default="linkerd", show_default=True, help="Namespace of Linkerd's control plane.")
@click.option("-s", "--stack", default="linkerd", show_default=True, help="Stack that the settings are written to.")
@click.option("-y", "--yes", is_flag=True, help="Write the stack's file, and have Linkerd's injector leave room.")
@click.option("--cwd", type=click.Path(path_type=Path), default=Path(), help="Project folder (default: found).")
@output_option
@click.option("--context", metavar="NAME", help="Context in the kubeconfig (alone: in $KUBECONFIG or ~/.kube/config).")
@click.option("--kubeconfig", metavar="FILE", help="Cluster access file (default: that of Tulle's own local cluster).")
def adopt_linkerd(
    linkerd_namespace: str,
    stack: str,
    yes: bool,
    cwd: Path,
    output: str,
    context: str | None,
    kubeconfig: str | None,
) -> None:
    """Read a Linkerd installation and print the plan of its move: settings, what does not move, and the steps.

    Nothing is changed without --yes. With it the stack's file is written and Linkerd's injector leaves namespaces of
    this mesh alone; pods move only when they are restarted after `tulle up`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", stack):
        raise click.BadParameter(f"{stack!r} is no name of a stack: letters, digits, - and _")
    with contextlib.closing(Cluster(find_target(kubeconfig, context))) as cluster:
        found = read(cluster, linkerd_namespace)
        home = project.find(cwd.resolve())
        made = plan(found, stack, {key: declared.get("default") for key, declared in home.schema.items()})
        if output == "json":
            answer = {"installation": _shown(found), "plan": made.as_json(), "stackFile": made.stack_file}
            print_json({**answer, "changed": prepare(cluster, home, made) if yes else []})
            return
        _print(found, made)
        for line in prepare(cluster, home, made) if yes else ():
            click.echo(f"done: {line}")
        if not yes:
            click.echo("nothing was changed; --yes makes the first two steps")


def read(cluster: Cluster, namespace: str) -> Installation:
    """What is there; raises DeployError where there is no Linkerd."""
    config = cluster.get(Ref("v1", "ConfigMap", namespace, "linkerd-config"))
    if config is None:
        raise DeployError(
            f"there is no Linkerd in namespace {namespace!r} (no ConfigMap linkerd-config)",
            "Name its namespace with --linkerd-namespace, and the cluster with --context.",
        )
    try:
        values = yaml.safe_load((config.get("data") or {}).get("values", "")) or {}
    except yaml.YAMLError as error:
        raise DeployError(f"ConfigMap {namespace}/linkerd-config holds no YAML under values: {error}") from None
    values = values if isinstance(values, dict) else {}
    roots = cluster.get(Ref("v1", "ConfigMap", namespace, "linkerd-identity-trust-roots"))
    secret = cluster.get(Ref("v1", "Secret", namespace, ISSUER))
    issuer = objects.text(secret, "tls.crt") or objects.text(secret, "crt.pem")
    kept = CERT_MANAGER in (((secret or {}).get("metadata") or {}).get("annotations") or {})
    namespaces, extensions = _namespaces(cluster, namespace)
    return Installation(
        namespace=namespace,
        version=str(values.get("linkerdVersion") or ""),
        values=values,
        anchors=_certificates(((roots or {}).get("data") or {}).get(labels.BUNDLE_KEY, "")),
        issuer=next(iter(_certificates(issuer)), None),
        issuer_kept_by="cert-manager" if kept else "",
        namespaces=namespaces,
        objects=_objects(cluster),
        extensions=extensions,
    )


def prepare(cluster: Cluster, home: Project, made: Plan) -> list[str]:
    """Make the two preparations; what was done, in words. Both are the same when done twice."""
    done = []
    path = home.root / f"Pulumi.{made.stack}.yaml"
    if not path.is_file():
        path.write_text(made.stack_file)
        done.append(f"{path.name} is written")
    elif path.read_text() != made.stack_file:
        raise DeployError(f"{path.name} is there already, with other settings", "Remove it, or name another --stack.")
    live = cluster.get(WEBHOOKS)
    changed = False
    for webhook in (live or {}).get("webhooks") or []:
        expressions = webhook.setdefault("namespaceSelector", {}).setdefault("matchExpressions", [])
        if LEAVE not in expressions:
            expressions.append(LEAVE)
            changed = True
    if live is not None and changed:
        cluster.replace(live)
        done.append(f"{WEBHOOKS} leaves namespaces with {labels.MESHED_NAMESPACE}: enabled alone")
    return done


def _namespaces(cluster: Cluster, mesh: str) -> tuple[tuple[Namespace, ...], tuple[str, ...]]:
    pods = cluster.list("v1", "Pod", "", f"{labels.CONTROL_PLANE_NAMESPACE}={mesh}")
    counts = Counter(pod["metadata"]["namespace"] for pod in pods)
    found, extensions, prefix = [], [], labels.CONFIG_PREFIX
    for each in cluster.list("v1", "Namespace"):
        metadata = each["metadata"]
        name, given = metadata["name"], metadata.get("annotations") or {}
        extension = (metadata.get("labels") or {}).get(EXTENSION)
        extensions += [extension] if extension else []
        config = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
        inject = given.get(labels.INJECT, "")
        if name != mesh and not extension and (inject in ("enabled", "ingress") or counts[name]):
            found.append(Namespace(name, inject, config, counts[name]))
    return tuple(sorted(found, key=lambda each: each.name)), tuple(sorted(extensions))


def _objects(cluster: Cluster) -> tuple[tuple[str, str, str], ...]:
    found: set[tuple[str, str, str]] = set()
    for group, kind, versions in KINDS:
        for version in versions:
            try:
                items = cluster.list(f"{group}/{version}", kind)
            except ClusterError as error:
                if error.kind_absent:
                    continue
                raise
            found |= {(kind, each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in items}
            break
    return tuple(sorted(found))


def _certificates(pem: str) -> tuple[Certificate, ...]:
    try:
        loaded = authority.load_bundle(pem) if pem.strip() else []
    except AuthorityError:
        return ()
    return tuple(
        Certificate(
            each.subject.rfc4514_string(), authority.identity_of(each), each.not_valid_after_utc.isoformat()
        )
        for each in loaded
    )


def _shown(found: Installation) -> dict[str, Any]:
    """What is printed of it; of its values only those that the plan speaks of, since a chart's may hold a key."""
    return {key: value for key, value in asdict(found).items() if key != "values"}


def _print(found: Installation, made: Plan) -> None:
    click.echo(f"Linkerd {found.version or '(version unknown)'} in namespace {found.namespace}\n")
    certificates: list[Manifest] = [{"what": "anchor", "of": each} for each in found.anchors]
    certificates += [{"what": "issuer", "of": found.issuer}] if found.issuer else []
    print_table(
        ("CERTIFICATE", "SUBJECT", "EXPIRES"),
        [(each["what"], each["of"].subject, each["of"].not_after) for each in certificates],
    )
    kept = f"the issuer is kept by {found.issuer_kept_by}; " if found.issuer_kept_by else ""
    click.echo(f"{kept}the mesh makes an anchor and issuer of its own: identities of the two never meet\n")
    print_table(
        ("NAMESPACE", "INJECT", "MESHED PODS"), [(each.name, each.inject, each.pods) for each in found.namespaces]
    )
    for title, remarks in (("does not move by itself", made.unmoved), ("mind while both run", made.warnings)):
        if remarks:
            click.echo(f"\n{title}:")
            for each in remarks:
                click.echo(f"  {each.what}\n    {each.instead}")
    click.echo(f"\nPulumi.{made.stack}.yaml:\n{made.stack_file}")
    for number, step in enumerate(made.steps, 1):
        click.echo(f"{number}. {step}")
