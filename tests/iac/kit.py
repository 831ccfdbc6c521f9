"""What the tests of the stack share: a complete config, the program under mocks, and a tiny project to deploy."""

import asyncio
import datetime
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pulumi
from google.protobuf import empty_pb2
from pulumi.runtime import mocks, settings, stack
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.args import MeshSettings
from components.deploy import project, wire
from components.settings import read

ROOT: Final = Path(__file__).resolve().parents[2]
CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----\nmock\n-----END CERTIFICATE-----\n"
ENVIRONMENT: Final = {"HOME": "/home/someone", "TULLE_STATE": "/state"}


def config(stack_name: str = "local", **overrides: str) -> dict[str, str]:
    """A stack's complete config; keys are written with `_` for the dots."""
    named = {key.replace("_", "."): value for key, value in overrides.items()}
    return project.load(ROOT).config(stack_name, named).values


def arguments(stack_name: str = "local", **overrides: str) -> MeshSettings:
    """The mesh's arguments for a stack of this project."""
    cluster = {"kubernetes:context": "some", "kubernetes:kubeconfig": "/state/kubeconfig"}
    return read({**config(stack_name, **overrides), **cluster}, stack_name, ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Registered:
    """One resource as it reached the monitor."""

    type: str
    name: str
    parent: str
    inputs: dict[str, Any]
    raw: dict[str, Any]
    provider: str
    protect: bool
    custom: bool
    depends: tuple[str, ...]


@dataclass(slots=True)
class Graph:
    """All resources of one run, and the outputs of components."""

    resources: list[Registered] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    urns: dict[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> list[Registered]:
        """All of a type, by its last part."""
        return [each for each in self.resources if each.type.rpartition(":")[2] == kind]

    def one(self, kind: str, name: str) -> Registered:
        """The Kubernetes object of a kind and name."""
        found = [each for each in self.of(kind) if each.inputs.get("metadata", {}).get("name") == name]
        assert len(found) == 1, (kind, name, len(found))
        return found[0]


class Recorder(mocks.MockMonitor):
    """Answers as a cluster would in which everything comes out as asked for."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._graph = graph

    def RegisterResource(self, request: Any) -> Any:
        from google.protobuf import json_format, struct_pb2
        from pulumi.runtime.proto import resource_pb2

        urn = self.make_urn(request.parent, request.type, request.name)
        raw = json_format.MessageToDict(request.object)
        inputs = wire.decode(raw, wire.Secrets())
        self._graph.urns[urn] = request.name
        self._graph.resources.append(
            Registered(
                request.type,
                request.name,
                request.parent,
                inputs,
                raw,
                request.provider,
                bool(request.protect),
                request.custom,
                tuple(request.dependencies),
            )
        )
        outputs = {key: value for key, value in inputs.items() if key != "__provider"}
        if request.type.endswith((":TrustAnchor", ":Issuer")):
            outputs |= {"certificate": CERTIFICATE, "not_after": "2036-01-01T00:00:00+00:00", "fingerprint": "ab"}
        answer = json_format.ParseDict(outputs, struct_pb2.Struct())
        return resource_pb2.RegisterResourceResponse(urn=urn, id=f"{request.name}-id", object=answer)

    def RegisterResourceOutputs(self, request: Any) -> Any:
        self._graph.finished.add(request.urn)
        return empty_pb2.Empty()


def run(program: Callable[[], object], preview: bool = False) -> Graph:
    """Run a program against the recorder, in a context of its own; raises what the program raises."""
    graph, raised = Graph(), []

    def body() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda _loop, _context: None)
        monitor = Recorder(graph)
        features = set(monitor.GetDeploymentInfo(empty_pb2.Empty()).supportedFeatures)  # type: ignore[no-untyped-call]
        engine = mocks.MockEngine(None)
        settings.configure(
            mocks.MockSettings(  # type: ignore[no-untyped-call]
                monitor=monitor,
                monitor_features=features,
                engine=engine,
                project="tulle",
                stack="test",
                dry_run=preview,
                organization="organization",
                callbacks=None,
            )
        )
        try:
            loop.run_until_complete(stack.run_in_stack(lambda: _nothing(program())))
        except BaseException as error:
            raised.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return graph


def fit_nodes(folder: Path, stack_name: str = "prod", **overrides: str) -> str:
    """The path of a report that says that all nodes are fit: without one a stack of production does not come up."""
    from components.requirements import node_requirements

    found = {
        "schema": 1,
        "time": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "requirements": node_requirements(arguments(stack_name, **overrides))["hash"],
        "nodes": {"node-1": {"ok": True}},
    }
    path = folder / "nodes-report.json"
    path.write_text(json.dumps(found))
    return str(path)


def mesh_graph(stack_name: str = "local", preview: bool = False, **overrides: str) -> Graph:
    """The whole mesh of a stack."""
    from components.mesh import Mesh

    given = arguments(stack_name, **overrides)
    return run(lambda: Mesh("tulle", given), preview)


def secret_at(raw: Mapping[str, Any], key: str) -> bool:
    """Whether a top-level input travelled as a secret."""
    return wire.marked_secret(raw.get(key))


def exported(name: str, value: pulumi.Input[Any]) -> None:
    """Export, from a program under test."""
    pulumi.export(name, value)


def _nothing(_: object) -> None:
    return None


def served_schema(command: list[str], folder: Path) -> dict[str, Any]:
    """The schema that a component provider host serves, started as Pulumi starts it: from elsewhere, no PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    try:
        assert process.stdout is not None
        with grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            found: dict[str, Any] = json.loads(stub.GetSchema(provider_pb2.GetSchemaRequest()).schema)
            return found
    finally:
        process.kill()
        process.communicate()
