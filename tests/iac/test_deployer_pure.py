"""The parts of the deployer that only decide: values of the protocol, differences, readiness, inventory, display."""

import base64
import io
from typing import Any

import pytest
from rich.console import Console

from components.deploy import inventory, manifests, readiness, wire
from components.deploy.display import Display
from components.deploy.errors import OwnershipError
from components.deploy.inventory import Entry, Inventory
from components.deploy.manifests import Change
from components.deploy.readiness import Lost, Ready, Waiting
from components.deploy.refs import Ref
from components.deploy.registration import seconds
from components.deploy.steps import Action, Step, Tally
from components.deploy.wire import Secrets


class TestWire:
    def test_values_lose_their_marks_and_secrets_are_remembered(self) -> None:
        secrets = Secrets()
        value = {
            "port": 80.0,
            "ratio": 0.5,
            "none": None,
            "key": {wire.SIGNATURE_KEY: wire.SECRET_SIGNATURE, "value": {"inner": "s3cret-value"}},
            "list": [{wire.SIGNATURE_KEY: wire.OUTPUT_SIGNATURE, "value": "also-secret", "secret": True}],
            "reference": {wire.SIGNATURE_KEY: wire.REFERENCE_SIGNATURE, "urn": "urn:x", "id": "ns/name"},
        }
        assert wire.decode(value, secrets) == {
            "port": 80,
            "ratio": 0.5,
            "key": {"inner": "s3cret-value"},
            "list": ["also-secret"],
            "reference": "ns/name",
        }
        assert secrets.redact("a s3cret-value and also-secret") == "a [secret] and [secret]"

    def test_a_secret_is_hidden_in_its_base64_form_and_line_by_line(self) -> None:
        secrets = Secrets()
        key = "-----BEGIN PRIVATE KEY-----\n" + "A" * 64 + "\n" + "B" * 40 + "\n-----END PRIVATE KEY-----\n"
        secrets.add(base64.b64encode(key.encode()).decode())
        for text in (key, base64.b64encode(key.encode()).decode(), "A" * 64):
            assert "A" * 20 not in secrets.redact(f"before {text} after")
        assert secrets.hide({"a": ["x" + "A" * 64], "n": 1}) == {"a": ["x[secret]"], "n": 1}

    def test_short_values_do_not_eat_other_text(self) -> None:
        secrets = Secrets()
        secrets.add("on")
        assert secrets.redact("replication") == "replication"

    def test_unknowns_are_found_at_any_depth(self) -> None:
        assert wire.has_unknown({"a": [{"b": f"x{wire.UNKNOWN}"}]})
        assert not wire.has_unknown({"a": [1, None, "b"]})


class TestManifests:
    def test_a_difference_names_the_field_by_the_names_of_list_items(self) -> None:
        live = {"kind": "D", "spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}}
        wanted = {"kind": "D", "spec": {"containers": [{"name": "a", "image": "x:2"}, {"name": "b", "image": "y"}]}}
        assert manifests.changes(live, wanted) == [Change("spec.containers[a].image", "x:1", "x:2")]

    def test_what_only_the_server_writes_is_no_difference(self) -> None:
        live = {
            "metadata": {"uid": "1", "resourceVersion": "2", "generation": 3, "managedFields": []},
            "status": {"a": 1},
        }
        assert manifests.changes(live, {"metadata": {"generation": 4}}) == []

    def test_a_secrets_values_are_hidden_even_where_nobody_marked_them(self) -> None:
        live = {"kind": "Secret", "data": {"a": "b2xk"}, "type": "Opaque"}
        wanted = {"kind": "Secret", "data": {"a": "bmV3", "b": "bW9yZQ=="}, "type": "Opaque"}
        assert [str(change) for change in manifests.changes(live, wanted)] == [
            "~ data.a: [secret] -> [secret]",
            "+ data.b: [secret]",
        ]

    def test_long_and_many_lined_values_stay_on_one_line(self) -> None:
        text = str(Change("data.x", "a\nb", "c" * 500))
        assert "\n" not in text
        assert len(text) < 200
        assert "(500 characters)" in text

    def test_a_patch_and_a_crds_keys_are_spelt_as_kubernetes_does(self) -> None:
        made = manifests.manifest_of(
            {"kind": "NamespacePatch", "__provider": "x", "s": {"x_kubernetes_list_type": "map"}}
        )
        assert made == {"kind": "Namespace", "s": {"x-kubernetes-list-type": "map"}}

    def test_an_object_of_a_bare_intent_is_ours_only_if_we_applied_it(self) -> None:
        ours = {"metadata": {"managedFields": [{"manager": "tulle-a-b", "operation": "Apply"}]}}
        theirs = {"metadata": {"managedFields": [{"manager": "kubectl", "operation": "Update"}]}}
        assert manifests.made_here(ours, "tulle-a-b")
        assert not manifests.made_here(theirs, "tulle-a-b")
        assert manifests.made_here({"metadata": {}}, "tulle-a-b")


def deployment(**status: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "generation": 2},
        "spec": {"replicas": 2},
        "status": status,
    }


def pod(reason: str, message: str = "", restarts: int = 0) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    last = {"terminated": {"exitCode": 64, "message": "TULLE_PROXY_LOG: unknown level"}}
    status = {"name": "c", "state": state, "restartCount": restarts, "lastState": last}
    return {"metadata": {"name": "p", "namespace": "n"}, "status": {"containerStatuses": [status]}}


class TestReadiness:
    def test_a_deployment_is_ready_when_all_new_pods_are_and_no_old_one_is_left(self) -> None:
        done = {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}
        assert readiness.judge(deployment(**done)) == Ready()
        for late in ({"observedGeneration": 1}, {"availableReplicas": 1}, {"updatedReplicas": 1}, {"replicas": 3}):
            assert isinstance(readiness.judge(deployment(**{**done, **late})), Waiting)

    @pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
    def test_an_image_that_cannot_be_pulled_is_lost_with_the_pods_words(self, reason: str) -> None:
        verdict = readiness.judge(deployment(), [pod(reason, "manifest unknown")])
        assert isinstance(verdict, Lost)
        assert "pod n/p, container c" in verdict.reason
        assert "manifest unknown" in verdict.reason
        assert "make push" in verdict.way_out

    def test_a_crash_loop_is_lost_only_after_some_restarts_and_with_the_last_words(self) -> None:
        assert isinstance(readiness.judge(deployment(), [pod("CrashLoopBackOff", restarts=1)]), Waiting)
        verdict = readiness.judge(deployment(), [pod("CrashLoopBackOff", restarts=readiness.CRASHES)])
        assert isinstance(verdict, Lost)
        assert "exit code 64 TULLE_PROXY_LOG: unknown level" in verdict.reason
        assert "kubectl logs p -n n -c c --previous" in verdict.way_out

    def test_a_pod_that_cannot_be_scheduled_is_waited_for_with_the_reason(self) -> None:
        condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
        stuck = {"metadata": {"name": "p"}, "status": {"conditions": [condition]}}
        verdict = readiness.judge(deployment(), [stuck])
        assert verdict == Waiting("pod p cannot be scheduled: 0/1 nodes are available")

    def test_a_refusing_admission_is_lost_and_an_absent_webhook_is_waited_for(self) -> None:
        def failing(message: str) -> readiness.Verdict:
            condition = {"type": "ReplicaFailure", "status": "True", "message": message}
            return readiness.judge(deployment(conditions=[condition]))

        assert isinstance(failing("admission webhook denied the request: uid 2102"), Lost)
        assert isinstance(failing('pods "x" is forbidden: exceeded quota'), Lost)
        assert isinstance(failing("failed calling webhook: connection refused"), Waiting)

    def test_other_kinds(self) -> None:
        def of(kind: str, **status: Any) -> readiness.Verdict:
            return readiness.judge({"kind": kind, "metadata": {}, "status": status})

        established = {"type": "Established", "status": "True"}
        assert of("CustomResourceDefinition", conditions=[established]) == Ready()
        assert isinstance(of("CustomResourceDefinition"), Waiting)
        assert of("Job", conditions=[{"type": "Complete", "status": "True"}]) == Ready()
        assert isinstance(of("Job", conditions=[{"type": "Failed", "status": "True", "message": "x"}]), Lost)
        assert of("Namespace", phase="Active") == Ready()
        assert isinstance(of("Namespace", phase="Terminating"), Waiting)
        assert of("ConfigMap") == Ready()
        skipped = {"kind": "Deployment", "metadata": {"annotations": {readiness.SKIP_AWAIT: "true"}}}
        assert readiness.judge(skipped) == Ready()


def entry(kind: str, name: str, namespace: str = "", **more: Any) -> Entry:
    ref = Ref("v1", kind, namespace, name)
    return Entry(inventory.object_key(ref), "object", "v1", kind, namespace, name, "uid", **more)


class TestInventory:
    def test_it_survives_the_journey_to_the_cluster_and_back(self) -> None:
        entries = [
            entry("Namespace", "n"),
            entry("ConfigMap", "c", "n", depends=("core/Namespace/n",), protect=True),
            Entry("dynamic/A/b", "dynamic", provider="x", identity="i", inputs={"a": 1}, outputs={"b": "c"}),
        ]
        before = Inventory("p", "s", {each.key: each for each in entries}, {"out": "put"}, "7")
        written = inventory.encode(before)
        assert written["metadata"]["resourceVersion"] == "7"
        assert inventory.decode(written) == before

    def test_another_deployers_stack_is_refused_with_the_way_to_hand_over(self) -> None:
        marked = inventory.encode(Inventory("p", "s", resource_version="1"))
        marked["data"]["owner"] = "pulumi"
        with pytest.raises(OwnershipError, match=r"'pulumi'.*\n.*tulle handover --to embedded"):
            inventory.decode(marked)

    def test_a_new_api_version_is_the_same_object(self) -> None:
        assert inventory.object_key(Ref("apps/v1", "D", "n", "x")) == inventory.object_key(
            Ref("apps/v2", "D", "n", "x")
        )
        assert inventory.object_key(Ref("v1", "Namespace", "", "x")) == "core/Namespace/x"

    def test_deletion_respects_who_needs_whom(self) -> None:
        namespace, role = entry("Namespace", "n"), entry("Role", "r", "n")
        binding = entry("RoleBinding", "b", "n", depends=(role.key,))
        config = entry("ConfigMap", "c", "n")
        doomed = {each.key: each for each in (namespace, role, binding, config)}
        waves = [sorted(each.name for each in wave) for wave in inventory.deletion_waves(doomed)]
        assert waves == [["b", "c"], ["r"], ["n"]]

    def test_a_cycle_cannot_hang_a_deletion(self) -> None:
        one = entry("A", "a", depends=("core/A/b",))
        other = entry("A", "b", depends=("core/A/a",))
        assert len(inventory.deletion_waves({one.key: one, other.key: other})) == 1

    def test_what_is_protected_keeps_what_it_stands_on(self) -> None:
        namespace, other = entry("Namespace", "n"), entry("Namespace", "o")
        secret = entry("Secret", "s", "n", protect=True)
        entries = {each.key: each for each in (namespace, other, secret)}
        assert inventory.kept(entries) == {namespace.key, secret.key}


class TestDisplay:
    def test_a_plan_is_readable_and_redacted(self) -> None:
        secrets = Secrets()
        secrets.add("hunter2hunter2")
        out = io.StringIO()
        display = Display(Console(file=out, width=200), secrets)
        changed = Step(Action.UPDATE, "ConfigMap n/c", (Change("data.a[b]", "hunter2hunter2", "blue"),))
        kept_step = Step(Action.KEEP, "Namespace n", note="protected")
        display.plan(Tally([Step(Action.SAME, "x"), changed, kept_step, Step(Action.CREATE, "Namespace n")]))
        display.waits("Deployment n/d", "hunter2hunter2 [bold]0 of 1 ready")
        assert out.getvalue().splitlines() == [
            "+ Namespace n",
            "~ ConfigMap n/c",
            "    ~ data.a[b]: [secret] -> blue",
            "! Namespace n  (protected)",
            "1 to create, 1 to update, 1 protected and kept, 1 unchanged",
            "    Deployment n/d: [secret] [bold]0 of 1 ready",
        ]

    def test_custom_timeouts_are_read(self) -> None:
        assert seconds("1h30m") == 5400
        assert seconds("45s") == 45
        assert seconds("") == 0
