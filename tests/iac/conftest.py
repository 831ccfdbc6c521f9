"""The local cluster for tests of the stack."""

import os
from collections.abc import Iterator

import pytest

from tests.kit.cluster import Kube


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    """Tulle's own local cluster."""
    reason = Kube.missing()
    if reason and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    found = Kube()
    yield found
    found.close()
