"""Messages: applying what is sent to what was known gives what is."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from components.destination.balancing import DEFAULT, Balancing, FailureAccrual
from components.destination.index import EXTERNAL, EndpointView, Kind, View
from components.destination.terms import NONE, Retries, Terms
from components.destination.translate import snapshot, update
from proxy.api import destination_pb2 as pb

ENDPOINTS = st.builds(
    EndpointView,
    address=st.sampled_from(["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]),
    identity=st.sampled_from(["", "web.demo"]),
    opaque=st.booleans(),
    labels=st.sampled_from([(), (("pod", "a"), ("zone", "z"))]),
)
VIEWS = st.builds(
    View,
    kind=st.sampled_from(Kind),
    opaque=st.booleans(),
    authority=st.sampled_from(["", "web.demo.svc.cluster.local:80"]),
    labels=st.sampled_from([(), (("namespace", "demo"),)]),
    balancing=st.sampled_from([DEFAULT, Balancing(FailureAccrual()), Balancing(penalizes_failures=True)]),
    terms=st.sampled_from([NONE, Terms(Retries(((500, 599),), (14,), 2, 300)), Terms(idle_ms=10)]),
    endpoints=st.lists(ENDPOINTS, max_size=3).map(lambda found: {each.address: each for each in found}),
)


class Reader:
    """What a proxy knows, by the contract's rules."""

    def __init__(self) -> None:
        self.target = pb.Snapshot()
        self.endpoints: dict[str, pb.Endpoint] = {}

    def read(self, message: pb.Update | None) -> None:
        if message is None:
            return
        if message.WhichOneof("kind") == "snapshot":
            self.target.CopyFrom(message.snapshot)
            self.endpoints = {each.address: each for each in message.snapshot.endpoints}
        else:
            for address in message.delta.remove:
                del self.endpoints[address]
            self.endpoints.update({each.address: each for each in message.delta.upsert})

    def knows(self) -> tuple[object, ...]:
        endpoints = {address: each.SerializeToString(deterministic=True) for address, each in self.endpoints.items()}
        target = self.target
        balancing = target.balancing.SerializeToString(deterministic=True)
        terms = (
            target.retries.SerializeToString(deterministic=True),
            target.time_limits.SerializeToString(deterministic=True),
        )
        return target.kind, target.protocol, target.authority, dict(target.labels), balancing, terms, endpoints


@given(st.lists(VIEWS, min_size=1, max_size=6))
def test_following_the_updates_is_as_good_as_a_snapshot(views: list[View]) -> None:
    follower = Reader()
    follower.read(snapshot(views[0]))
    for old, new in pairwise(views):
        follower.read(update(old, new))
        latest = Reader()
        latest.read(snapshot(new))
        assert follower.knows() == latest.knows()


@given(VIEWS)
def test_nothing_is_sent_for_nothing(view: View) -> None:
    assert update(view, view) is None


def test_a_changed_endpoint_alone_is_a_delta() -> None:
    one, other = EndpointView("10.0.0.1:80"), EndpointView("10.0.0.2:80")
    old = View(Kind.SERVICE, endpoints={one.address: one})
    new = View(Kind.SERVICE, endpoints={other.address: other})
    message = update(old, new)
    assert message is not None
    assert [each.address for each in message.delta.upsert] == ["10.0.0.2:80"]
    assert list(message.delta.remove) == ["10.0.0.1:80"]


def test_another_kind_is_a_snapshot() -> None:
    message = update(EXTERNAL, View(Kind.SERVICE, authority="web"))
    assert message is not None
    assert message.snapshot.kind == pb.Kind.KIND_SERVICE
