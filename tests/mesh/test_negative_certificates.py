"""Certificates that must be refused: the table of the SPIFFE X509-SVID rules, RFC 5280's path validation, weak keys and
absurd sizes. Each over a real handshake, shown by a client to the inbound proxy and by a server to the outbound one,
each with the cause that metric and log name, and not a byte of a request passed on.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.api import labels
from proxy.api.names import workload_identity
from tests.kit.certificates import Signer, address, ca, new_key, spoilt
from tests.kit.impostor import Impostor, showing
from tests.kit.lines import Line, in_thread
from tests.kit.peers import Leaf, ask
from tests.kit.topology import Mesh, Pod

NAME = workload_identity("stranger", "demo", "tulle", "cluster.local").dns_name
ID = "spiffe://cluster.local/ns/demo/sa/stranger"
OTHER = NAME.replace("stranger", "other")
SECOND = timedelta(seconds=1)
PEM = serialization.Encoding.PEM
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


class Signers:
    """Who signs in this table. `ours` is the mesh's issuer; `wide` an anchor of the bundle without a path limit."""

    def __init__(self, mesh: Mesh) -> None:
        self.ours = Signer.of(mesh.issuer.certificate, mesh.issuer.key)
        self.anchor = Signer.of(mesh.anchor.certificate, mesh.anchor.key)
        self.wide = ca("wide")
        self.company = ca("company", key="RSA-2048")

    def below(self, depth: int) -> Signer:
        """An issuer with so many CAs above it, up to the wide anchor."""
        signer = self.wide
        for number in range(depth):
            signer = ca(f"ca {number}", signer)
        return signer


Make = Callable[[Signers], Leaf]


def leaf(**changes: object) -> Make:
    """A leaf of our issuer that differs in this."""
    return lambda signers: spoilt(NAME, signers.ours, **changes)


def under(make: Callable[[Signers], Signer]) -> Make:
    """A leaf as it should be, of another signer."""
    return lambda signers: spoilt(NAME, make(signers))


def tree(**permitted: x509.GeneralName) -> Make:
    """A leaf of a CA that may sign only for names like these, or not for those."""
    constraints = x509.NameConstraints(
        [permitted["only"]] if "only" in permitted else None, [permitted["never"]] if "never" in permitted else None
    )
    return under(lambda signers: ca("constrained", signers.wide, constraints=constraints))


def unicode_domain(_: Signers) -> bytes:
    """A subjectAltName with our DNS name and a SPIFFE ID whose trust domain has a letter beyond ASCII."""
    parts = [(0x82, NAME.encode()), (0x86, "spiffe://clust\u00e9r.local/ns/demo/sa/stranger".encode())]
    inner = b"".join(bytes([tag, len(text)]) + text for tag, text in parts)
    return b"\x30\x81" + bytes([len(inner)]) + inner


@dataclass(frozen=True)
class Row:
    """A certificate, and what inbound and outbound call it."""

    make: Make
    inbound: str
    outbound: str = ""
    """The same, if empty."""
    words: str = ""


USAGE, NAMES, CHAIN, WEAK = (f"certificate_{kind}" for kind in ("usage", "names", "chain", "weak"))
UNTRUSTED, LARGE = "certificate_untrusted", "certificate_too_large"
MISMATCH = "identity_mismatch"


def ids(*uris: str, words: str = "not a SPIFFE ID") -> Row:
    """Our DNS name beside these URIs."""
    return Row(leaf(uris=uris), NAMES, words=words)


TABLE = {
    # Time. The 20 s by which clocks may differ are in the leaf itself: nobody adds to them.
    "expired": Row(leaf(ends=timedelta(minutes=-1)), "certificate_expired"),
    "expired a second ago": Row(leaf(ends=-SECOND), "certificate_expired"),
    "not yet valid": Row(leaf(begins=timedelta(minutes=10)), "certificate_not_yet_valid"),
    "valid in ten seconds": Row(leaf(begins=10 * SECOND), "certificate_not_yet_valid"),
    "issuer expired": Row(under(lambda s: ca("old", s.wide, ends=-SECOND)), "certificate_expired"),
    # Names.
    "no name but a subject": Row(leaf(dns=(), uris=(), subject=NAME[:64]), NAMES, MISMATCH),
    "an IP address alone": Row(leaf(dns=(), uris=(), others=(address("10.0.0.1"),)), NAMES, MISMATCH),
    "an e-mail address alone": Row(leaf(dns=(), uris=(), others=(x509.RFC822Name("a@b.example"),)), NAMES, MISMATCH),
    "a SPIFFE ID without a DNS name": Row(leaf(dns=()), NAMES, MISMATCH),
    "no SPIFFE ID": ids(words="one DNS name, one URI"),
    "two SPIFFE IDs": ids(ID, ID.replace("stranger", "other"), words="exactly one URI"),
    "the same SPIFFE ID twice": ids(ID, ID, words="exactly one URI"),
    "a second DNS name": Row(leaf(dns=(NAME, OTHER)), NAMES),
    "a second DNS name before ours": Row(leaf(dns=(OTHER, NAME)), NAMES),
    "an IP address beside": Row(leaf(others=(address("10.0.0.1"),)), NAMES),
    "the SPIFFE ID of another workload": ids(ID.replace("stranger", "other"), words="not of one workload"),
    "the SPIFFE ID of another namespace": ids(ID.replace("demo", "prod"), words="not of one workload"),
    "the DNS name of another workload": Row(leaf(dns=(OTHER,)), NAMES, MISMATCH),
    "another workload": Row(lambda s: spoilt(OTHER, s.ours), "", MISMATCH),
    "another trust domain": Row(
        lambda s: spoilt(NAME.replace("cluster.local", "other.example"), s.ours), "identity_foreign", MISMATCH
    ),
    "another mesh": Row(lambda s: spoilt(NAME.replace(".tulle.", ".linkerd."), s.ours), "identity_foreign", MISMATCH),
    "the company's mail server": Row(lambda s: spoilt("mail.company.example", s.ours), NAMES, MISMATCH),
    "NUL in the DNS name": Row(leaf(dns=(f"{NAME}\0.evil.example",)), NAMES, MISMATCH),
    "a wildcard": Row(leaf(dns=("*" + NAME[NAME.index(".") :],)), NAMES, MISMATCH),
    "a trust domain in capitals": ids(ID.replace("cluster.local", "CLUSTER.LOCAL")),
    "a trust domain beyond ASCII": Row(lambda s: spoilt(NAME, s.ours, raw_names=unicode_domain(s)), NAMES),
    "a scheme that is not spiffe": ids(ID.replace("spiffe", "https")),
    "a scheme in capitals": ids(ID.replace("spiffe", "SPIFFE")),
    "a trust domain without a workload": ids("spiffe://cluster.local"),
    "the root path": ids("spiffe://cluster.local/"),
    "no trust domain": ids("spiffe:///ns/demo/sa/stranger"),
    "a slash at the end": ids(ID + "/"),
    "an empty segment": ids(ID.replace("/sa/", "//sa/")),
    "a relative segment": ids(ID.replace("/ns/", "/./ns/")),
    "a segment that goes up": ids(ID.replace("/sa/", "/../sa/")),
    "a port": ids(ID.replace("local/", "local:8443/")),
    "a user": ids(ID.replace("//", "//root@")),
    "a query": ids(ID + "?x=1"),
    "a fragment": ids(ID + "#x"),
    "percent-encoding": ids(ID.replace("stranger", "str%61nger")),
    "an ID of 3 KB": ids(f"{ID}/{'x' * 3000}"),
    "a trust domain of 300 letters": ids(f"spiffe://{'x' * 300}/ns/demo/sa/stranger"),
    "names that are not critical, and no subject": Row(leaf(names_critical=False), NAMES, words="must be critical"),
    # Usage.
    "a CA as leaf": Row(leaf(is_ca=True), USAGE, words="may not be a CA"),
    "the anchor as leaf": Row(lambda s: shown(s.anchor), USAGE),
    "no keyUsage": Row(leaf(usage=None), USAGE, words="keyUsage must be critical"),
    "keyUsage that is not critical": Row(leaf(usage_critical=False), USAGE, words="keyUsage must be critical"),
    "no digitalSignature": Row(leaf(usage=("key_agreement",)), USAGE),
    "keyCertSign": Row(leaf(usage=("digital_signature", "key_cert_sign")), USAGE, words="without keyCertSign"),
    "cRLSign": Row(leaf(usage=("digital_signature", "crl_sign")), USAGE, words="without keyCertSign and cRLSign"),
    "no extendedKeyUsage": Row(leaf(extended=None), USAGE, words="both serverAuth and clientAuth"),
    "clientAuth alone": Row(leaf(extended=(ExtendedKeyUsageOID.CLIENT_AUTH,)), USAGE),
    "serverAuth alone": Row(leaf(extended=(ExtendedKeyUsageOID.SERVER_AUTH,)), USAGE),
    # Chain.
    "an anchor nobody trusts": Row(under(lambda s: ca("someone else's")), UNTRUSTED),
    "an anchor of a trusted name": Row(under(lambda s: ca("wide")), UNTRUSTED),
    "signed by itself": Row(leaf(own_signature=True, subject="me", path=()), UNTRUSTED, words="self-signed"),
    "a signature that is wrong": Row(leaf(tampered=True), UNTRUSTED, words="signature"),
    "an issuer that is not sent along": Row(leaf(path=()), UNTRUSTED),
    "an AKI of another key": Row(leaf(names_key=new_key()), UNTRUSTED),
    "a leaf that signs": Row(under(lambda s: ca("a leaf", s.ours, is_ca=False, signs=False)), CHAIN),
    "an issuer without keyCertSign": Row(under(lambda s: ca("no signer", s.wide, signs=False)), CHAIN),
    "an issuer below an issuer": Row(under(lambda s: ca("below", s.ours)), CHAIN, words="path length"),
    "an unknown critical extension": Row(leaf(unknown=True), CHAIN, words="unhandled critical"),
    "one in the issuer": Row(under(lambda s: ca("odd", s.wide, unknown=True)), CHAIN, words="unhandled critical"),
    "a DNS name outside of its CA's": Row(tree(only=x509.DNSName("company.example")), CHAIN),
    "a DNS name that its CA may not sign": Row(tree(never=x509.DNSName("cluster.local")), CHAIN),
    "a URI that its CA may not sign": Row(tree(never=x509.UniformResourceIdentifier("cluster.local")), CHAIN),
    "a chain of twelve": Row(under(lambda s: s.below(12)), CHAIN, words="too long"),
    # Algorithms.
    "RSA of 1024 bits": Row(leaf(key="RSA-1024"), WEAK),
    "RSA of 2048 bits": Row(leaf(key="RSA-2048"), WEAK, words="not ECDSA on P-256"),
    "P-384": Row(leaf(key="P-384"), WEAK),
    "P-521": Row(leaf(key="P-521"), WEAK),
    "Ed25519": Row(leaf(key="Ed25519"), WEAK),
    "an issuer of RSA 1024": Row(under(lambda s: ca("weak", s.wide, key="RSA-1024")), WEAK),
    # Size. What it costs the proxy is looked at below.
    "a chain of a hundred": Row(under(lambda s: s.below(100)), LARGE),
    "ten thousand names": Row(leaf(dns=(NAME, *(f"n{n}.example" for n in range(10_000)))), LARGE),
    "a certificate of a megabyte": Row(leaf(others=(x509.DirectoryName(x509.Name([x509.NameAttribute(
        NameOID.COMMON_NAME, "x" * 64) for _ in range(12_000)])),)), LARGE),
}  # fmt: skip
HUGE = ("a chain of a hundred", "ten thousand names", "a certificate of a megabyte")


def shown(signer: Signer) -> Leaf:
    """A CA shown as if it were a workload's certificate."""
    key = signer.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Leaf(signer.certificate.public_bytes(PEM), key)


@pytest.fixture(scope="module")
def own_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh whose bundle has further anchors, as one with a company's own CA."""
    with Mesh() as made:
        yield made


@pytest.fixture(scope="module")
def signers(own_mesh: Mesh) -> Signers:
    made = Signers(own_mesh)
    further = b"".join(each.certificate.public_bytes(PEM) for each in (made.wide, made.company))
    (own_mesh.folder / labels.BUNDLE_KEY).write_bytes(own_mesh.anchor.certificate.encode() + further)
    return made


@pytest.fixture(scope="module")
def served(own_mesh: Mesh, signers: Signers) -> Iterator[tuple[Pod, Pod, Line]]:
    """A meshed pod, somebody outside, and a port on which the pod's application listens."""
    web = own_mesh.pod("web")
    outside = own_mesh.pod("outside", meshed=False)
    with Line(own_mesh, outside, web, direct=True) as line:
        yield web, outside, line


@pytest.fixture(scope="module")
def calling(own_mesh: Mesh, signers: Signers) -> tuple[Pod, Pod]:
    """A meshed client, and a pod that is said to be meshed, as NAME, where the test answers instead of a proxy."""
    impostor = own_mesh.pod("impostor", meshed=False)
    fact = own_mesh.facts["pod demo/impostor"]["pod"]
    own_mesh.tell("pod demo/impostor", {"pod": {**fact, "identity": NAME}})
    return own_mesh.pod("client"), impostor


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("case", [case for case, row in TABLE.items() if row.inbound])
def test_a_client_that_shows_it_is_refused(signers: Signers, served: tuple[Pod, Pod, Line], case: str) -> None:
    web, outside, line = served
    row = TABLE[case]
    made = row.make(signers)
    before, used = web.proxy.metric("inbound_tcp_errors_total", error=row.inbound), cpu_seconds(web.proxy.pid)
    since = len(web.proxy.log)
    answer = outside.namespace.within(lambda: ask(line.address, web.identity, made, REQUEST))
    spent = cpu_seconds(web.proxy.pid) - used
    assert answer.data == b""
    assert answer.error or row.inbound == "identity_foreign", "refused after the handshake, without an alert"
    assert line.no_connection(0.05)
    assert web.proxy.metric("inbound_tcp_errors_total", error=row.inbound) == before + 1, causes(web, "inbound")
    assert_told(web, since, row.inbound, row.words)
    assert case not in HUGE or spent <= 0.1, f"{spent:.2f} s of processor time for one hostile client"


@pytest.mark.parametrize("case", list(TABLE))
def test_a_server_that_shows_it_gets_nothing(
    own_mesh: Mesh, signers: Signers, calling: tuple[Pod, Pod], case: str
) -> None:
    client, impostor = calling
    row = TABLE[case]
    cause = row.outbound or row.inbound
    with Impostor(own_mesh, impostor, row.make(signers)) as hostile:
        before, since = client.proxy.metric("outbound_tcp_errors_total", error=cause), len(client.proxy.log)
        answer = client.get(hostile.address)
        assert answer.status in (502, 503, 504)
        assert client.proxy.metric("outbound_tcp_errors_total", error=cause) > before, causes(client, "outbound")
        assert_told(client, since, cause, row.words if cause == row.inbound else "")
    assert hostile.received == b"", "bytes of the request reached somebody else"


def test_what_the_table_departs_from_is_taken(
    own_mesh: Mesh, signers: Signers, served: tuple[Pod, Pod, Line], calling: tuple[Pod, Pod]
) -> None:
    """Without this, the table would prove nothing: leaves as identity makes them, by other signers too."""
    web, outside, line = served
    client, impostor = calling
    made = {
        "ours": spoilt(NAME, signers.ours),
        "of two days": spoilt(NAME, signers.ours, ends=timedelta(days=2)),
        "with a subject": spoilt(NAME, signers.ours, subject="web", names_critical=False),
        "below an RSA anchor": spoilt(NAME, ca("identity", signers.company)),
        "below five CAs": spoilt(NAME, signers.below(5)),
        "with a certificate too many": spoilt(
            NAME, signers.ours, path=(signers.wide.certificate, *signers.ours.path, signers.anchor.certificate)
        ),
    }
    for case, each in made.items():
        with in_thread(lambda: serve_one(line)):
            answer = outside.namespace.within(partial(ask, line.address, web.identity, each, REQUEST))
        assert answer.data.endswith(b"ok"), (case, answer, causes(web, "inbound"))
        with Impostor(own_mesh, impostor, each) as friendly:
            assert client.get(friendly.address).status == 200, (case, causes(client, "outbound"))


def test_a_session_is_never_resumed(signers: Signers, served: tuple[Pod, Pod, Line]) -> None:
    """A ticket would carry a client past the anchors of today: there are none."""
    web, outside, line = served
    made = spoilt(NAME, signers.ours)
    context = showing(made, client=True)
    with in_thread(lambda: serve_one(line)), outside.connect(line.address) as plain:
        with context.wrap_socket(plain, server_hostname=web.identity) as wrapped:
            wrapped.sendall(REQUEST)
            while wrapped.recv(1000):
                pass
            assert wrapped.session is None or not wrapped.session.has_ticket


def causes(pod: Pod, side: str) -> dict[str, float]:
    """What a proxy has refused so far, for a failed test's message."""
    return {labels["error"]: value for labels, value in pod.proxy.samples(f"{side}_tcp_errors_total")}


def assert_told(pod: Pod, since: int, cause: str, words: str) -> None:
    """The log says so, too; what has been said within the last seconds it says only once."""
    log = pod.proxy.log
    assert f"error={cause}" in log
    assert words in log[since:] or f"error={cause}" not in log[since:], log[since:][-1000:]


def serve_one(line: Line) -> None:
    """The application answers one request."""
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    app.close()
