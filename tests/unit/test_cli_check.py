"""`tulle check`: each judgement, and a whole run on a cluster made of plain values."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.cli import check, judge
from components.deploy.errors import ClusterError
from components.trust.reports import Report
from components.upgrade.survey import Left, Survey, Workload
from proxy.api import labels

NOW = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
DAY = 86400.0


def pod(name: str = "web", *, init: int | None = 0, ready: bool = True, meshed: bool = True, **changes: Any) -> Any:
    inits: list[dict[str, Any]] = []
    if init is not None:
        inits.append({"name": "linkerd-init", "state": {"terminated": {"exitCode": init}}})
    if meshed:
        inits.append({"name": "linkerd-proxy", "ready": ready, "state": {"running": {}}})
    found = {
        "metadata": {
            "name": name,
            "namespace": "demo",
            "creationTimestamp": "2029-12-31T00:00:00Z",
            "labels": {labels.CONTROL_PLANE_NAMESPACE: "tulle"} if meshed else {},
            "annotations": {},
        },
        "spec": {"containers": []},
        "status": {"phase": "Running", "initContainerStatuses": inits},
    }
    found.update(changes)
    return found


def refused(name: str, code: int, **status: Any) -> Any:
    """A pod whose validator ended with a code and waits to be tried again."""
    found = pod(name, init=None, ready=False, spec={"containers": [], "nodeName": "node-1"})
    found["status"]["phase"] = "Pending"
    ended = status or {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": code}}}
    found["status"]["initContainerStatuses"].insert(0, {"name": "linkerd-network-validator", **ended})
    return found


def deployment(name: str, **status: int) -> Any:
    full = {"readyReplicas": 1, "updatedReplicas": 1, "observedGeneration": 1}
    return {
        "metadata": {"name": name, "namespace": "tulle", "generation": 1},
        "spec": {
            "replicas": 1,
            "template": {"spec": {"containers": [{"name": name, "image": f"localhost/{name}:abc"}]}},
        },
        "status": {**full, **status},
    }


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (deployment("identity"), "ok", "1 of 1"),
        (deployment("identity", readyReplicas=0), "error", "0 of 1"),
        (deployment("identity", updatedReplicas=0), "error", "rollout"),
        (deployment("identity", observedGeneration=0), "error", "rollout"),
        ({**deployment("identity"), "spec": {"replicas": 0}}, "error", "scaled to 0"),
        (None, "error", "does not exist"),
    ],
)
def test_components_are_ready_with_all_replicas(found: Any, status: str, says: str) -> None:
    finding = judge.component_ready("identity", found)
    assert finding.status == status
    assert says in finding.message
    assert bool(finding.hint) == (status != "ok")


@pytest.mark.parametrize(
    ("moments", "status", "says"),
    [
        ([NOW + 400 * DAY, NOW + 300 * DAY], "ok", "300d"),
        ([NOW + 59 * DAY], "warning", "expires in 59d"),
        ([NOW + 400 * DAY, NOW - DAY], "error", "expired 1d ago"),
        ([], "error", "no a CA found"),
    ],
)
def test_ca_certificates_are_judged_by_the_first_to_end(moments: list[float], status: str, says: str) -> None:
    finding = judge.ca_life("issuer", "a CA", moments, NOW, "do", "renewed by nobody")
    assert finding.status == status
    assert says in finding.message
    assert ("renewed by nobody" in finding.message) is (status != "error")


def test_what_renews_itself_is_late_by_its_own_length() -> None:
    def status(left: float, lifetime: float) -> str:
        return judge.ca_life("issuer", "it", [NOW + left], NOW, "do", "renewed", lifetime).status

    assert (status(120 * DAY, 365 * DAY), status(100 * DAY, 365 * DAY)) == ("ok", "warning")
    assert (status(10, 20), status(5, 20)) == ("ok", "warning")


def keeper(mesh: str) -> Any:
    found = deployment("trust")
    found["metadata"]["labels"] = {labels.COMPONENT: "trust"}
    found["spec"]["template"] = {"spec": {"containers": [{"command": ["x", f"--mesh-namespace={mesh}"]}]}}
    return found


def test_older_proxies_are_named_and_no_fault() -> None:
    older = Survey((Workload("shop", "deployment", "web"),), {"shop": 1}, (Left("shop", "pod/solo", "alone"),))
    finding = judge.proxies_current(older)
    assert finding.status == "ok"
    assert "2 workloads run other proxies" in finding.message
    assert "shop/deployment/web, shop/pod/solo" in finding.message
    assert "every proxy" in judge.proxies_current(Survey((), {"shop": 1}, ())).message


def test_the_keeper_is_that_of_this_mesh() -> None:
    assert check._keeper([keeper("other"), keeper("tulle")], "tulle") == keeper("tulle")
    assert check._keeper([keeper("other")], "tulle") is None
    assert judge.keeper_ready(keeper("tulle")).status == "ok"
    assert "describe deployment trust" in judge.keeper_ready({**keeper("tulle"), "status": {}}).hint
    assert judge.keeper_ready(None).status == "ok"


def test_leaves_are_judged_by_their_own_length() -> None:
    key, other = ("demo", "web"), ("demo", "api")
    assert judge.leaf_life({key: NOW + 50}, {key: 60.0}, NOW).status == "ok"
    assert judge.leaf_life({key: NOW + 5}, {key: 60.0}, NOW).status == "warning"
    finding = judge.leaf_life({key: NOW + 50, other: NOW - 1}, {}, NOW)
    assert finding.status == "error"
    assert "demo/api" in finding.message


def test_the_proxies_that_have_reported_the_bundle_are_counted() -> None:
    def running(name: str) -> Any:
        found = pod(name)
        found["metadata"]["uid"] = name
        found["status"]["containerStatuses"] = [{"name": "linkerd-proxy", "ready": True, "state": {"running": {}}}]
        return found

    told = {"web": Report("new", "a", 1), "api": Report("old", "a", 1)}
    finding = judge.bundle_reports([running("web"), running("api")], told, "new", "tulle")
    assert (finding.status, finding.message.startswith("1 of 2")) == ("ok", True)
    assert "demo/api" in finding.message
    assert judge.bundle_reports([running("web")], told, "new", "tulle").message.startswith("1 of 1")


def test_every_namespace_needs_the_same_bundle() -> None:
    assert judge.bundle_copies("PEM", ["demo"], {"demo": "PEM\n"}).status == "ok"
    finding = judge.bundle_copies("PEM", ["demo", "shop"], {"demo": "OLD"})
    assert (finding.status, "demo, shop" in finding.message) == ("error", True)


def webhook(bundle: str = "Q0E=", namespace: str = "tulle", policy: str = "Fail") -> Any:
    config = {"service": {"namespace": namespace, "name": "injector"}, "caBundle": bundle}
    return {"webhooks": [{"name": "x", "failurePolicy": policy, "clientConfig": config}]}


def test_the_webhook_is_registered_with_a_ca() -> None:
    assert judge.webhook_configured([webhook(), webhook(policy="Ignore")], "tulle").message.startswith("2 webhooks")
    assert "caBundle is empty" in judge.webhook_configured([webhook(""), webhook()], "tulle").message
    assert judge.webhook_configured([webhook(namespace="linkerd")], "tulle").status == "error"
    assert judge.webhook_configured([], "tulle").status == "error"


def test_a_trial_pod_must_come_back_with_a_proxy() -> None:
    injected = {"spec": {"initContainers": [{"name": "linkerd-proxy"}], "containers": []}}
    assert judge.webhook_serves("demo", injected, "").status == "ok"
    assert judge.webhook_serves("demo", {"spec": {}}, "").status == "error"
    assert "no route" in judge.webhook_serves("demo", None, "no route").message


def test_proxies_must_be_ready_while_their_pods_live() -> None:
    assert judge.proxies_ready([pod()], "tulle").message == "1 proxies ready"
    assert "demo/slow" in judge.proxies_ready([pod(), pod("slow", ready=False)], "tulle").message
    done = pod("done", ready=False)
    done["status"]["phase"] = "Succeeded"
    assert judge.proxies_ready([done], "tulle").status == "ok"


MET = {("demo", name): True for name in ("web", "bad", "starting", "outside")}


def test_a_meshed_pod_without_redirection_is_found() -> None:
    spaces: dict[str, Any] = {"demo": {}}
    assert judge.pods_intercepted([pod()], spaces, "tulle", MET).status == "ok"
    for broken in (pod("bad", init=1), pod("bad", init=None)):
        finding = judge.pods_intercepted([pod(), broken], spaces, "tulle", MET)
        assert (finding.status, "demo/bad" in finding.message) == ("error", True)
    finding = judge.pods_intercepted([pod(), pod("bad")], spaces, "tulle", {**MET, ("demo", "bad"): False})
    assert (finding.status, "not redirected: demo/bad" in finding.message) == ("error", True)
    assert "1 by their own word" in judge.pods_intercepted([pod(), pod("new")], spaces, "tulle", MET).message
    starting = pod("starting", init=None)
    starting["status"]["phase"] = "Pending"
    assert judge.pods_intercepted([starting], spaces, "tulle", MET).status == "ok"


STATUS = '{"kind":"Status","apiVersion":"v1","message":"%s"}'


@pytest.mark.parametrize(
    ("answer", "redirected"),
    [
        ("GET /x: ", True),
        (STATUS % "error trying to reach service: EOF", True),
        (STATUS % "error trying to reach service: dial tcp 10.1.2.3:1: connect: connection refused", False),
        (STATUS % 'pods \\"web\\" is forbidden: cannot get resource \\"pods/proxy\\"', None),
    ],
)
def test_who_answers_at_a_port_without_a_listener_tells_of_redirection(answer: str, redirected: bool | None) -> None:
    assert judge.redirected(answer) is redirected


def test_a_pod_that_escaped_injection_is_found_unless_excused() -> None:
    spaces: dict[str, Any] = {"demo": {}}
    outside = pod("outside", meshed=False, init=None)
    assert "without a proxy: demo/outside" in judge.pods_intercepted([outside], spaces, "tulle", MET).message
    assert judge.pods_intercepted([outside], {}, "tulle", MET).status == "ok"
    outside["metadata"]["annotations"][labels.INJECT] = "disabled"
    assert judge.pods_intercepted([outside], spaces, "tulle", MET).status == "ok"


def test_pods_that_prometheus_does_not_know_are_found_once_they_are_old_enough() -> None:
    assert judge.certificates_reported([pod()], {}, "tulle", NOW).status == "error"
    assert judge.certificates_reported([pod()], {("demo", "web"): 1.0}, "tulle", NOW).status == "ok"
    young = pod()
    young["metadata"]["creationTimestamp"] = "2029-12-31T23:59:30Z"
    assert judge.certificates_reported([young], {}, "tulle", NOW).status == "ok"


def test_old_kubernetes_is_a_warning() -> None:
    assert judge.kubernetes_version({"major": "1", "minor": "34", "gitVersion": "v1.34.4"}).status == "ok"
    assert judge.kubernetes_version({"major": "1", "minor": "27+", "gitVersion": "v1.27.1"}).status == "warning"


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["ok"], 0), (["ok", "warning"], 2), (["warning", "error"], 1), ([], 0)],
)
def test_exit_codes(statuses: list[judge.Status], code: int) -> None:
    assert check.exit_code([judge.Finding("x", status, "") for status in statuses]) == code


def bundle(days: float) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root.tulle.cluster.local")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=days))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class World:
    """A cluster made of plain values, with everything in order."""

    def __init__(self) -> None:
        now = time.time()
        self.target = "the world"
        self.identity_metrics = f"{check.ISSUER_EXPIRY} {now + 300 * DAY}\n{check.ISSUER_LIFE} {365 * DAY}\n"
        self.injector_metrics = f"{check.WEBHOOK_EXPIRY} {now + 25 * DAY}\n"
        ready = [{"type": "Ready", "status": "True"}]
        components = []
        for component in (*judge.CONTROL_PLANE, "prometheus"):
            found = pod(component)
            found["metadata"]["namespace"] = "tulle"
            found["metadata"]["labels"][labels.COMPONENT] = component
            found["status"]["conditions"] = ready
            components.append(found)
        web = pod()
        web["status"]["conditions"] = ready
        self.pods = [web, *components]
        annotated = {"annotations": {labels.INJECT: "enabled"}}
        self.objects: dict[str, list[Any]] = {
            "Deployment": [*(deployment(name) for name in (*judge.CONTROL_PLANE, "prometheus")), keeper("tulle")],
            "Pod": self.pods,
            "Namespace": [{"metadata": {"name": "tulle"}}, {"metadata": {"name": "demo", **annotated}}],
            "MutatingWebhookConfiguration": [webhook(), webhook(policy="Ignore")],
        }
        self.bundle: str | None = bundle(3650)
        self.injects = True
        self.probe = ""
        self.leaf = now + DAY

    def request(self, *_: str) -> Any:
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}

    def list(self, _: str, kind: str, namespace: str = "", selector: str = "") -> Any:
        found = self.objects[kind]
        if selector.startswith(labels.COMPONENT):
            component = selector.partition("=")[2]
            found = [i for i in found if i["metadata"].get("labels", {}).get(labels.COMPONENT) == component]
        return found

    def get(self, _: Any) -> Any:
        return None if self.bundle is None else {"data": {labels.BUNDLE_KEY: self.bundle}}

    def create(self, manifest: Any, dry_run: bool) -> Any:
        assert dry_run
        if self.injects:
            manifest["spec"]["initContainers"] = [{"name": "linkerd-proxy"}]
        return manifest

    def text(self, path: str) -> str:
        assert path.endswith(f":{check.PROBED_PORT}/proxy/")
        raise ClusterError(f"GET {path}: {self.probe}", status=502)

    def pod_get(self, namespace: str, name: str, port: int, path: str) -> bytes:
        if port == labels.CONTROLLER_ADMIN_PORT:
            return (self.injector_metrics if name == "injector" else self.identity_metrics).encode()
        moment = self.leaf if check.LEAF_EXPIRY in path else self.leaf - DAY
        rows = ",".join(
            f'{{"metric":{{"namespace":"{found["metadata"]["namespace"]}","pod":"{found["metadata"]["name"]}"}},'
            f'"value":[0,"{moment}"]}}'
            for found in self.pods
        )
        return f'{{"status":"success","data":{{"result":[{rows}]}}}}'.encode()


def findings(world: World) -> dict[str, judge.Finding]:
    return {finding.name: finding for finding in check.run_checks(world, "tulle")}  # type: ignore[arg-type]


def test_a_world_in_order_is_well() -> None:
    found = findings(World())
    assert {finding.name: finding.message for finding in found.values() if finding.status != "ok"} == {}
    assert {"control-plane-identity", "trust-anchors", "issuer", "webhook-serves", "proxies-ready", "pods-intercepted",
            "proxies-scraped", "proxy-certificates"} <= set(found)  # fmt: skip


def test_each_thing_that_breaks_is_named() -> None:
    def broken(**changes: Any) -> set[str]:
        world = World()
        for name, value in changes.items():
            setattr(world, name, value)
        return {finding.name for finding in findings(world).values() if finding.status == "error"}

    assert broken(injects=False) == {"webhook-serves"}
    assert broken(probe="connect: connection refused") == {"pods-intercepted"}
    assert broken(bundle=None) == {"trust-anchors", "trust-bundle-copies"}
    assert broken(bundle="not PEM") == {"trust-anchors"}
    assert broken(bundle=bundle(0.00001)) <= {"trust-anchors"}
    assert broken(identity_metrics="") == {"issuer"}
    assert broken(injector_metrics="") == {"webhook-certificate"}
    assert broken(leaf=time.time() - 1) == {"proxy-certificates"}


def test_a_missing_mesh_is_said_once() -> None:
    world = World()
    world.objects["Namespace"] = []
    assert [name for name, f in findings(world).items() if f.status == "error"] == ["mesh-installed"]


def test_pods_that_wait_for_the_plugin_are_named_with_their_node() -> None:
    again = refused("again", 95, state={"terminated": {"exitCode": 95}})
    for waits in (refused("first", 95), again):
        found = judge.pods_intercepted([pod(), waits], {}, "tulle", {})
        assert found.status == "error"
        name = waits["metadata"]["name"]
        assert f"1 wait for the CNI plugin, which has not set their rules: demo/{name}" in found.message
        assert "on node node-1" in found.message
        assert "role tulle.mesh.cni" in found.hint
    for fine in (refused("other", 1), refused("past", 95, state={"running": {}})):
        assert judge.pods_intercepted([pod(), fine], {}, "tulle", {}).status == "ok"


def test_a_validator_that_ended_well_is_as_good_as_an_init_container() -> None:
    good = pod("good", init=None)
    validator = {"name": "linkerd-network-validator", "state": {"terminated": {"exitCode": 0}}}
    good["status"]["initContainerStatuses"].insert(0, validator)
    found = judge.pods_intercepted([good], {}, "tulle", {})
    assert (found.status, found.message.split()[0]) == ("ok", "1")
