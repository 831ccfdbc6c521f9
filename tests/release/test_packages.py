"""The wheels, the sources and the Pulumi package, each used where there is no clone."""

import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from proxy.api import labels
from tests.ansible.kit import BIN, ROOT
from tests.iac.kit import served_schema
from tests.iac.rest import serving
from tests.kit.lines import App
from tests.kit.sidecar import as_proxy_user
from tests.kit.topology import Mesh
from tests.release.conftest import REGISTRY, Environment, Release, run

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers: [{name: web, image: web}]
"""


def test_the_command_runs_from_the_wheel(outside: Environment, release: Release) -> None:
    assert release.version in outside.run("tulle", "version", "--client").stdout
    explained = outside.run("tulle", "config", "explain", "images.tag").stdout
    assert release.version in explained
    injected = yaml.safe_load(outside.run("tulle", "inject", "-", given=DEPLOYMENT).stdout)
    assert injected["spec"]["template"]["metadata"]["annotations"] == {labels.INJECT: "enabled"}


def test_the_manifests_are_what_the_installed_command_renders(outside: Environment, release: Release) -> None:
    for stack in ("dev", "prod"):
        text = release.file(f"install-{stack}.yaml").read_text()
        images = set(re.findall(r"(?m)^\s+(?:- )?image: (\S+)$", text))
        assert {image.partition("@")[0] for image in images} == {
            f"{REGISTRY}/{name}" for name in ("proxy", "control", "prometheus")
        }
        assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)
        assert set(json.loads((release.folder / "images.json").read_text()).values()) == images
        refs = f"images.refs=@{release.folder}/images.json"
        unseen = ("-c", "nodes.required=false", "-c", "nodes.report=")
        again = outside.run("tulle", "render", "--stack", stack, "-c", refs, *unseen).stdout
        assert text.partition("\n")[2] == again
        assert "Secret" not in {document["kind"] for document in yaml.safe_load_all(text)}


def test_the_compiled_proxy_of_the_wheel_carries_a_request(outside: Environment, mesh: Mesh) -> None:
    # -P: not from the folder it is started in, which is the clone.
    command = [*as_proxy_user(), str(outside.python), "-P", "-m", "proxy"]
    where = outside.run("python", "-P", "-c", "import proxy.wire.http2; print(proxy.wire.http2.__file__)").stdout
    assert where.startswith(str(outside.folder))
    web = mesh.pod("released", command=command)
    client = mesh.pod("released-client", command=command)
    address = mesh.service("released", 80, [web], target=8080)
    with App(web, 8080):
        assert client.get(address).status == 200
    assert client.proxy.metric("response_total", direction="outbound", tls="true") == 1
    served = Path(f"/proc/{web.proxy.pid}/maps").read_text()
    assert f"{outside.folder}/env" in served
    assert str(ROOT / "proxy") not in served


def test_pip_takes_the_wheel_that_fits(release: Release, tmp_path: Path) -> None:
    def taken(*platform: str) -> str:
        run(
            str(BIN / "pip"), "download", "--quiet", "--no-index", "--no-deps", "--only-binary", ":all:",
            *platform, "--find-links", str(release.folder), "--dest", str(tmp_path), "tulle",
        )  # fmt: skip
        (found,) = tmp_path.glob("*.whl")
        found.unlink()
        return found.name

    assert taken() == release.compiled.name
    assert taken("--python-version", "3.14") == release.pure.name
    assert taken("--platform", "macosx_11_0_arm64") == release.pure.name


def test_each_wheel_holds_what_it_says(release: Release) -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    modules = set(re.findall(r'\{ name = "([\w.]+)", sources', settings))
    with zipfile.ZipFile(release.compiled) as opened:
        names = opened.namelist()
    assert {name.partition(".")[0].replace("/", ".") for name in names if name.endswith(".so")} == modules
    assert not [name for name in names if name.endswith((".pyx", ".c"))]
    with zipfile.ZipFile(release.pure) as opened:
        bare = opened.namelist()
    assert {name.split("/")[1] for name in bare if name.startswith("proxy/")} == {"__init__.py", "api"}
    page = (release.folder / "README.md").read_text()
    for library in ("libssl.so.3", "libcrypto.so.3", "libnghttp2.so.14", "libc.so.6"):
        assert f"`{library}`" in page


def test_the_sources_are_a_source_distribution(release: Release, tmp_path: Path) -> None:
    with tarfile.open(release.file(f"tulle-{release.version}.tar.gz")) as opened:
        opened.extractall(tmp_path, filter="data" if not _has_links(opened) else "tar")
    source = tmp_path / f"tulle-{release.version}"
    # What pip asks first of a source distribution; building it whole takes minutes.
    script = "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('.'))"
    told = run(sys.executable, "-c", script, folder=source).stdout.split()[-1]
    metadata = (source / told / "METADATA").read_text()
    assert f"\nVersion: {release.version}\n" in metadata
    assert metadata == (source / "PKG-INFO").read_text()
    assert (source / "proxy/io/reactor.pyx").is_file()
    assert (source / ".ci/run").stat().st_mode & 0o100


def _has_links(opened: tarfile.TarFile) -> bool:
    return any(entry.issym() for entry in opened)


def test_the_pulumi_package_serves_its_schema(
    release: Release, make_environment: Callable[[], Environment], tmp_path: Path
) -> None:
    """Started as Pulumi's Python host starts it: by its folder, in the environment of its requirements.txt.

    Then an outside program uses the same package, without Tulle installed, against an API server in memory.
    """
    plugin = tmp_path / "plugin"
    with tarfile.open(release.file("pulumi-resource-tulle-*.tar.gz")) as opened:
        opened.extractall(plugin, filter="data")
    assert yaml.safe_load((plugin / "PulumiPlugin.yaml").read_text())["runtime"]["options"]["virtualenv"] == "venv"
    fresh = make_environment()
    fresh.install("--require-hashes", "--requirement", str(plugin / "requirements.txt"))
    absent = run(str(fresh.python), "-c", "import components", folder=tmp_path, check=False)
    assert "No module named 'components'" in absent.stderr
    served = served_schema([str(fresh.python), "-u", str(plugin), "127.0.0.1:1"], tmp_path)
    golden = json.loads((ROOT / "components/schema.json").read_text())
    assert served["resources"] == golden["resources"]
    assert served["version"] == release.version
    deployed_from(fresh, tmp_path, str(plugin))


def deployed_from(environment: Environment, folder: Path, path: str) -> None:
    """The README's program, in a project of its own, brought up by the embedded deployer of the package."""
    (program,) = re.findall(r"(?ms)^## From a Pulumi program.*?```python\n(.*?)```", (ROOT / "README.md").read_text())
    project = folder / "shop"
    project.mkdir()
    with serving(folder) as (api, target):
        where = f'"context": "{target.context}", "kubeconfig": "{target.kubeconfig}"'
        program = program.replace('"context": "production"', where).replace("sha256:...", "sha256:" + "0" * 64)
        (project / "__main__.py").write_text(program)
        (project / "Pulumi.yaml").write_text("name: shop\nruntime: python\n")
        (project / "Pulumi.test.yaml").write_text("config: {}\n")
        options = ("--kubeconfig", target.kubeconfig, "--context", target.context, "--cwd", str(project))
        environment.run(
            "python", "-m", "components.cli.main", "up", "--stack", "test", "--yes", *options, PYTHONPATH=path
        )
        applied = {(body["kind"], body["metadata"]["name"]) for body in map(json.loads, api.bodies) if "kind" in body}
    assert {("Deployment", "identity"), ("Deployment", "web"), ("Namespace", "shop")} <= applied
