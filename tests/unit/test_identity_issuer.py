"""The issuer's files: read live, and a pair that cannot be used never replaces one that can."""

import datetime
from pathlib import Path

import pytest

from components.identity.issuer import IssuerFiles
from tests.kit.authorities import DAY, NOW, Signer, authority

ROOT = authority("root", end=NOW + 3650 * DAY)
ONE = authority("one", ROOT)
TWO = authority("two", ROOT)


class Folder:
    """What the kubelet mounts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = IssuerFiles(path, path / "bundle.crt")

    def write(self, signer: Signer, key: Signer | None = None, bundle: bytes = ROOT.pem) -> None:
        (self.path / "tls.crt").write_bytes(signer.pem)
        (self.path / "tls.key").write_bytes((key or signer).key_pem)
        (self.path / "bundle.crt").write_bytes(bundle)

    def read(self, now: datetime.datetime = NOW) -> tuple[str, str]:
        """The name of the issuer in use, and the problem."""
        self.files.read(now)
        current = self.files.current
        return current.certificate.subject.rfc4514_string() if current else "", self.files.problem


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_without_files_there_is_no_issuer_and_a_sentence_says_why(folder: Folder) -> None:
    name, problem = folder.read()
    assert name == ""
    assert "tls.crt" in problem
    assert "tulle-issuer" in problem


def test_a_new_pair_is_taken_live(folder: Folder) -> None:
    folder.write(ONE)
    assert folder.read() == ("CN=one", "")
    folder.write(TWO)
    assert folder.read() == ("CN=two", "")


def test_a_pair_that_does_not_match_is_refused_and_the_old_one_kept(folder: Folder) -> None:
    folder.write(ONE)
    folder.read()
    folder.write(TWO, key=ONE)
    name, problem = folder.read()
    assert name == "CN=one"
    assert "tls.key is not the key of tls.crt" in problem
    folder.write(TWO)
    assert folder.read() == ("CN=two", "")


def test_an_expired_or_untrusted_pair_is_refused_and_the_old_one_kept(folder: Folder) -> None:
    folder.write(ONE)
    folder.read()
    folder.write(authority("old", ROOT, start=NOW - 9 * DAY, end=NOW - DAY))
    assert folder.read()[0] == "CN=one"
    folder.write(authority("stranger"))
    assert folder.read()[0] == "CN=one"
    assert "no anchor" in folder.files.problem


def test_a_secret_as_the_kubelet_mounts_it_is_followed(folder: Folder) -> None:
    """Files are links through `..data`, which is moved to a new folder when the Secret changes."""
    for version, signer in (("..v1", ONE), ("..v2", TWO)):
        (folder.path / version).mkdir()
        (folder.path / version / "tls.crt").write_bytes(signer.pem)
        (folder.path / version / "tls.key").write_bytes(signer.key_pem)
    (folder.path / "bundle.crt").write_bytes(ROOT.pem)
    link = folder.path / "..data"
    link.symlink_to("..v1")
    for name in ("tls.crt", "tls.key"):
        (folder.path / name).symlink_to(f"..data/{name}")
    assert folder.read() == ("CN=one", "")
    (folder.path / "..new").symlink_to("..v2")
    (folder.path / "..new").rename(link)
    assert folder.read() == ("CN=two", "")


def test_files_that_vanish_leave_the_issuer_in_use(folder: Folder) -> None:
    folder.write(ONE)
    folder.read()
    (folder.path / "tls.crt").unlink()
    assert folder.read()[0] == "CN=one"


def test_the_bundle_is_read_again_too(folder: Folder) -> None:
    other = authority("other root", end=NOW + 3650 * DAY)
    below = authority("below", other)
    folder.write(below)
    assert folder.read()[0] == ""
    folder.write(below, bundle=ROOT.pem + other.pem)
    assert folder.read() == ("CN=below", "")


def test_a_pair_that_becomes_valid_later_is_taken_then(folder: Folder) -> None:
    folder.write(authority("early", ROOT, start=NOW + DAY, end=NOW + 9 * DAY))
    assert "check the clocks" in folder.read()[1]
    assert folder.read(NOW + 2 * DAY) == ("CN=early", "")


def test_an_issuer_that_expires_in_use_is_said_to_be(folder: Folder) -> None:
    folder.write(ONE)
    folder.read()
    name, problem = folder.read(NOW + 400 * DAY)
    assert name == "CN=one"
    assert "expired" in problem


def test_the_lives_of_issuer_and_anchors_are_metrics(folder: Folder) -> None:
    from prometheus_client import REGISTRY

    other = authority("other", end=NOW + 100 * DAY)
    folder.write(ONE, bundle=ROOT.pem + other.pem)
    folder.read()
    life = REGISTRY.get_sample_value("tulle_identity_issuer_lifetime_seconds")
    assert life == (ONE.certificate.not_valid_after_utc - ONE.certificate.not_valid_before_utc).total_seconds()

    def ends() -> set[float]:
        name = "tulle_identity_anchor_expiry_timestamp_seconds"
        return {sample.value for each in REGISTRY.collect() if each.name == name for sample in each.samples}

    assert ends() == {(NOW + 3650 * DAY).timestamp(), (NOW + 100 * DAY).timestamp()}
    # An anchor that was dropped takes its series with it.
    folder.write(TWO)
    folder.read()
    assert ends() == {(NOW + 3650 * DAY).timestamp()}
