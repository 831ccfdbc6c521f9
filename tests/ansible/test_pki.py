"""The cluster's certificates: made once, kept while they are good, renewed when they are not."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.ansible.kit import load

pki = load("plugins/modules/pki.py")

SERVER = {
    "name": "server",
    "authority": "ca",
    "common_name": "server",
    "organization": None,
    "names": ["localhost", "127.0.0.1"],
}
DAYS = datetime.timedelta(days=60)


def keep(folder: Path, only_look: bool = False, renew_before: datetime.timedelta = DAYS, **changes: Any) -> list[str]:
    keeper = pki.Keeper(folder, renew_before, only_look)
    keeper.authority("ca")
    keeper.certificate({**SERVER, **changes})
    keeper.key_pair("tokens")
    made: list[str] = keeper.made
    return made


def test_everything_is_made_once(tmp_path: Path) -> None:
    assert keep(tmp_path) == ["ca", "server", "tokens"]
    assert keep(tmp_path) == []


def test_only_looking_makes_nothing(tmp_path: Path) -> None:
    assert keep(tmp_path, only_look=True) == ["ca", "server", "tokens"]
    assert list(tmp_path.iterdir()) == []


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    keep(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}


def test_a_certificate_says_who_it_is_for(tmp_path: Path) -> None:
    keep(tmp_path, organization="system:nodes")
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


@pytest.mark.parametrize(
    "changes", [{"names": ["localhost"]}, {"common_name": "other"}, {"organization": "system:masters"}]
)
def test_a_certificate_that_says_something_else_is_made_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    keep(tmp_path)
    assert keep(tmp_path, **changes) == ["server"]


def test_what_is_about_to_expire_is_made_again(tmp_path: Path) -> None:
    keep(tmp_path)
    assert keep(tmp_path, renew_before=datetime.timedelta(days=366)) == ["server"]


def test_a_new_authority_signs_anew(tmp_path: Path) -> None:
    keep(tmp_path)
    (tmp_path / "ca.key").unlink()
    assert keep(tmp_path) == ["ca", "server"]


def test_a_pair_that_does_not_match_is_made_again(tmp_path: Path) -> None:
    keep(tmp_path)
    (tmp_path / "server.key").write_bytes((tmp_path / "ca.key").read_bytes())
    assert keep(tmp_path) == ["server"]
