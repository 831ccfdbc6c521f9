"""The stack when time has passed: a deployment that shows no change, and what `down` keeps."""

import datetime
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli.deploy_commands import down
from components.deploy.deployment import Deployment
from components.deploy.steps import Action
from components.trust import resource
from proxy.api import labels
from tests.iac.rest import RestApi, serving, unguarded

QUICK = {"demo.enabled": "false", "prometheus.enabled": "false"}


def at(monkeypatch: pytest.MonkeyPatch, passed: datetime.timedelta) -> None:
    """Move the clock of the trust material."""

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "datetime.datetime":  # type: ignore[override]
            return datetime.datetime.now(tz) + passed

    clock = types.SimpleNamespace(datetime=Later, UTC=datetime.UTC, timedelta=datetime.timedelta)
    monkeypatch.setattr(resource, "datetime", clock)


@pytest.mark.timeout(200)
def test_a_second_up_shows_no_change_a_day_later_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as (api, target):
        found = unguarded(tmp_path)
        made = Deployment(found, "local", found.config("local", QUICK), target)
        try:
            made.up()
            before = api.versions()
            for days in (0, 1, 180):
                at(monkeypatch, datetime.timedelta(days=days))
                tally = made.up().tally
                assert tally.quiet, [step.label for step in tally.steps if step.action is not Action.SAME]
                assert api.versions() == before, days
            # The clock counts: in the last quarter of its life an issuer that no keeper renewed is made anew.
            at(monkeypatch, datetime.timedelta(days=300))
            changed = [step.label for step in made.plan().steps if step.action is Action.UPDATE]
            assert changed == ["Issuer/tulle-authority-issuer"]
        finally:
            made.close()


def secrets(api: RestApi) -> list[str]:
    return sorted(f"{namespace}/{name}" for kind, namespace, name in api.objects if kind == "secrets")


@pytest.mark.timeout(200)
def test_down_says_what_it_kept_and_up_goes_on_with_it(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        found = unguarded(tmp_path)
        config = found.config("local", {**QUICK, "trust.protect": "true"})
        made = Deployment(found, "local", config, target)
        try:
            made.up()
            anchor = f"{labels.TRUST_NAMESPACE}/{labels.ANCHOR_SECRET}"
            assert anchor in secrets(api)
            key = api.objects["secrets", labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET]["data"]
            options = ["--stack", "local", "--cwd", str(tmp_path), "--context", target.context, "--yes"]
            options += ["--kubeconfig", target.kubeconfig]
            result = CliRunner().invoke(down, options)
            assert result.exit_code == 0, result.output
            for kept in ("TrustAnchor/tulle-authority-anchor", f"Namespace {labels.TRUST_NAMESPACE}"):
                assert f"! {kept}  (protected)" in result.output, result.output
            assert "3 protected and kept" in result.output
            assert secrets(api) == [anchor]
            # What was kept is what goes on.
            made.up()
            assert api.objects["secrets", labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET]["data"] == key
        finally:
            made.close()
