"""The in-process stand-in for Pulumi's engine: takes the SDK's requests apart, hands resources on, answers in the SDK's
words.

`pulumi.runtime.mocks.MockMonitor` supplies the many requests a deployment has no use for; nothing here is a mock.
"""

import threading
from typing import Any

from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2

from components.deploy import wire
from components.deploy.errors import DeployError, StoppedError
from components.deploy.refs import Target
from components.deploy.registration import Declared, Handler, Registration, seconds

STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_PREFIX = "pulumi:providers:"


class Monitor(MockMonitor):
    """Receives each registered resource on a thread of its own."""

    def __init__(self, project: str, stack: str, target: Target, secrets: wire.Secrets, handler: Handler) -> None:
        # The parent's mocks are never called: every request that would reach them is overridden below.
        super().__init__(None)  # type: ignore[arg-type]
        self._prefix = f"urn:pulumi:{stack}::{project}::"
        self._target = target
        self._secrets = secrets
        self._handler = handler
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._former: dict[str, tuple[str, ...]] = {}
        self.declared: list[Declared] = []
        self.failures: list[BaseException] = []

    def interrupt(self) -> None:
        """Begin no further resource and wait for none."""
        self.failures.append(StoppedError("interrupted"))
        self._handler.stop()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """The URN that Pulumi's engine would give."""
        chain = parent.split("::")[2] if parent else ""
        qualified = f"{chain}${type_}" if chain and chain != STACK_TYPE else type_
        return f"{self._prefix}{qualified}::{name}"

    def RegisterResource(self, request: Any) -> Any:
        """One resource: components get a name only, providers are checked, the rest is planned or applied."""
        urn = self.make_urn(request.parent, request.type, request.name)
        try:
            if self.failures:
                raise StoppedError(urn)
            return self._register(urn, request)
        except BaseException as error:
            with self._lock:
                self.failures.append(error)
            raise

    def RegisterResourceOutputs(self, request: Any) -> Any:
        """A component has registered all its children; of interest only for the stack itself."""
        if request.urn.split("::")[2] == STACK_TYPE and not self.failures:
            raw = json_format.MessageToDict(request.outputs)
            outputs = {key: wire.HIDDEN if wire.marked_secret(value) else value for key, value in raw.items()}
            self._handler.finish(self._secrets.hide(wire.decode(outputs, self._secrets)))
        return empty_pb2.Empty()

    def Invoke(self, request: Any) -> Any:
        """Functions of provider plugins cannot be served without the plugin."""
        raise DeployError(
            f"the program calls the function {request.tok}, which the embedded deployer does not have",
            "Deploy this program with the Pulumi CLI (`pulumi up`).",
        )

    def ReadResource(self, request: Any) -> Any:
        """Reading foreign resources belongs to the CLI too."""
        raise DeployError(
            f"the program reads the existing {request.type} {request.id!r}, which the embedded deployer does not do",
            "Deploy this program with the Pulumi CLI (`pulumi up`).",
        )

    def _register(self, urn: str, request: Any) -> Any:
        with self._lock:
            if urn in self._seen:
                raise DeployError(f"the program registers two resources as {urn}", "Give one of them another name.")
            self._seen.add(urn)
        inputs = wire.decode(json_format.MessageToDict(request.object), self._secrets)
        if request.type != STACK_TYPE:
            shown = {key: value for key, value in inputs.items() if not key.startswith("__")}
            with self._lock:
                self.declared.append(Declared(request.type, request.name, shown, bool(request.protect)))
        former = self._names_before(urn, request)
        if not request.custom:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        if request.type.startswith(PROVIDER_PREFIX):
            self._check_provider(request, inputs)
            return resource_pb2.RegisterResourceResponse(urn=urn, id=request.name, object=request.object)
        if request.type.startswith("kubernetes:") and "::default_" in (request.provider or "::default_"):
            raise DeployError(
                f"resource {request.name} ({request.type}) has no explicit provider: it would go to any cluster",
                "Pass the program's Kubernetes provider to it (opts.provider or its parent's providers).",
            )
        registration = Registration(
            urn=urn,
            type=request.type,
            name=request.name,
            inputs=inputs,
            depends=tuple(sorted({*request.dependencies} - {urn})),
            protect=bool(request.protect),
            timeout=seconds(request.customTimeouts.create),
            former=former,
        )
        outcome = self._handler.register(registration)
        marked = wire.mark_outputs(outcome.outputs, {*outcome.secret_keys, *request.additionalSecretOutputs})
        answer = json_format.ParseDict(marked, struct_pb2.Struct())
        return resource_pb2.RegisterResourceResponse(urn=urn, id=outcome.identity, object=answer)

    def _names_before(self, urn: str, request: Any) -> tuple[str, ...]:
        """Names by aliases, and, as Pulumi's engine has it, by those of a parent whose name a child's begins with."""
        own = [each.spec.name if each.HasField("spec") else each.urn.rpartition("::")[2] for each in request.aliases]
        own += [each.rpartition("::")[2] for each in request.aliasURNs]
        parent = request.parent.rpartition("::")[2]
        with self._lock:
            if parent and request.name.startswith(parent):
                rest = request.name[len(parent) :]
                own += [f"{name}{rest}" for name in self._former.get(request.parent, ())]
            self._former[urn] = tuple(dict.fromkeys(name for name in own if name and name != request.name))
            return self._former[urn]

    def _check_provider(self, request: Any, inputs: dict[str, Any]) -> None:
        if request.type != f"{PROVIDER_PREFIX}kubernetes":
            raise DeployError(
                f"the program uses the provider {request.type}; the embedded deployer knows kubernetes only",
                "Deploy this program with the Pulumi CLI (`pulumi up`).",
            )
        named = Target(str(inputs.get("kubeconfig", "")), str(inputs.get("context", "")))
        if request.name.startswith("default"):
            return
        if named != self._target:
            raise DeployError(
                f"the program's provider {request.name!r} names {named}, but {self._target} was asked for"
            )


def first_cause(failures: list[BaseException]) -> BaseException | None:
    """The failure to report: the first that is not a mere consequence of another."""
    real = [failure for failure in failures if not isinstance(failure, StoppedError)]
    return (real or failures or [None])[0]  # type: ignore[list-item]
