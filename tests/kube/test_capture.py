"""One capture of the pod network: a token of this run is read in the unmeshed pair's stream and not in the meshed
one's, which is TLS 1.3.
"""

import secrets
from pathlib import Path

import pytest

from tests.kit.apps import Apps
from tests.kit.capture import Capture, is_client_hello, negotiated_tls13
from tests.kit.cluster import Kube

BRIDGE = "tulle0"
REQUESTS = 50


@pytest.mark.skipif(not Path("/sys/class/net", BRIDGE).exists(), reason=f"no interface {BRIDGE} on this machine")
def test_meshed_traffic_is_tls13_and_unmeshed_traffic_is_readable(
    kube: Kube, image: str, meshed: str, plain: str
) -> None:
    apps = Apps(kube, image)
    token = secrets.token_hex(16)
    (meshed_api,) = apps.serve("api", meshed)
    (plain_api,) = apps.serve("api", plain)
    with Capture(BRIDGE) as capture:
        meshed_client = apps.client(meshed, f"http://api.{meshed}:8080/?token={token}", rate=10, new=5)
        plain_client = apps.client(plain, f"http://api.{plain}:8080/?token={token}", rate=10, new=5)
        for client in (meshed_client, plain_client):
            assert client.wait_for(ok=REQUESTS)["failed"] == 0

    readable = [data for _, data in capture.touching(plain_client.address) if token.encode() in data]
    assert readable, "the capture works only if it reads the unmeshed pair"
    hidden = [
        flow
        for address in (meshed_client.address, meshed_api["status"]["podIP"])
        for flow, data in capture.touching(address)
        if token.encode() in data
    ]
    assert hidden == [], "the token was sent in plain text"
    streams = [
        (flow, data)
        for flow, data in capture.between(meshed_client.address, meshed_api["status"]["podIP"])
        if flow[3] == 8080
    ]
    assert streams, "no stream from the meshed client to the meshed server"
    for flow, data in streams:
        if data:
            assert is_client_hello(data), flow
            assert negotiated_tls13(capture.reverse(flow)), flow
    assert plain_api["status"]["podIP"] != meshed_api["status"]["podIP"]
