"""Errors of a deployment: pure. Each one names what is wrong, with which value, and the way out."""


class DeployError(Exception):
    """Something the person who runs the deployment can put right; shown without a traceback."""

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem}\n  {way_out}" if way_out else problem)
        self.problem = problem
        self.way_out = way_out


class ClusterError(DeployError):
    """The API server refused a request, or could not be asked at all."""

    def __init__(self, problem: str, way_out: str = "", status: int = 0, reason: str = "") -> None:
        super().__init__(problem, way_out)
        self.status = status
        self.reason = reason

    @property
    def namespace_absent(self) -> bool:
        """Whether the object's namespace does not exist yet, or is on its way out from an earlier `down`."""
        absent = self.status == 404 and "namespaces " in self.problem
        return absent or (self.status == 403 and "being terminated" in self.problem)

    @property
    def kind_absent(self) -> bool:
        """Whether the API server does not serve the object's kind (yet)."""
        return self.reason == "KindAbsent"


class OwnershipError(DeployError):
    """An object or a stack belongs to someone else."""


class NotReadyError(DeployError):
    """An object was applied and will not become ready, or did not in time."""


class StoppedError(DeployError):
    """A step was not begun, because another one failed first; never shown."""
