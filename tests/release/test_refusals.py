"""What no release is made from, each with its way out: git's state, versions that differ, a silent changelog."""

import shutil
from pathlib import Path

import pytest
from release import locked, tree, versions, wheels
from release.__main__ import main
from release.versions import CHANGELOG, PLACES, ReleaseError

from tests.ansible.kit import ROOT
from tests.release.conftest import run

HERE = {place.path: (ROOT / place.path).read_text() for place in PLACES} | {
    CHANGELOG: "# Changelog\n\n## Unreleased\n\nWhat to do: nothing.\n\n- One line.\n"
}
VERSION = versions.found(versions.SOURCE, HERE["pyproject.toml"])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small repository with the files that repeat the version, released."""
    root = tmp_path / "clone"
    for path, text in versions.stamped(HERE, "1.2.3", "2026-01-31").items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for command in (("init", "-q"), ("add", "."), (*tree.AUTHOR, "commit", "-qm", "One"), ("tag", "v1.2.3")):
        run("git", *command, folder=root)
    return root


def test_this_tree_names_one_version_everywhere() -> None:
    assert {versions.found(place, HERE[place.path]) for place in PLACES} == {VERSION}


def test_a_stamped_tree_is_one_that_can_be_released(clone: Path) -> None:
    def read(path: str) -> str:
        return (clone / path).read_text()

    assert tree.tagged(clone, "1.2.3") == tree.git(clone, "rev-parse", "HEAD")
    versions.refuse_disagreement(read, "1.2.3")
    assert "## Unreleased\n\n## 1.2.3 (2026-01-31)\n\nWhat to do: nothing." in read(CHANGELOG)
    assert tree.stamp(clone, "1.2.3", "2026-02-01") == []


def test_git_must_agree(clone: Path) -> None:
    with pytest.raises(ReleaseError, match=r"there is no tag v1\.2\.4: `git tag v1\.2\.4`"):
        tree.tagged(clone, "1.2.4")
    (clone / "new.txt").write_text("")
    with pytest.raises(ReleaseError, match=r"differs from its commit \(new\.txt\)"):
        tree.tagged(clone, "1.2.3")
    run("git", "add", ".", folder=clone)
    run("git", *tree.AUTHOR, "commit", "-qm", "Two", folder=clone)
    with pytest.raises(ReleaseError, match=r"tag v1\.2\.3 is \w+, but checked out is \w+: `git checkout v1\.2\.3`"):
        tree.tagged(clone, "1.2.3")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.path)
def test_every_file_must_agree(clone: Path, place: versions.Place) -> None:
    path = clone / place.path
    path.write_text(path.read_text().replace("1.2.3", "1.2.2"))
    with pytest.raises(ReleaseError, match=rf"the version is 1\.2\.3, but {place.path} says 1\.2\.2: `make version"):
        versions.refuse_disagreement(lambda name: (clone / name).read_text(), "1.2.3")


@pytest.mark.parametrize(
    ("changelog", "words"),
    [
        ("## Unreleased\n\n- A.\n", r"has no section '## 1\.2\.3' \(it has Unreleased\)"),
        ("## Unreleased\n\n- A.\n\n## 1.2.3\n\nWhat to do: nothing.\n", "still has lines under '## Unreleased'"),
        ("## 1.2.3\n\n- A.\n", "has no paragraph that begins with 'What to do: '"),
    ],
)
def test_the_changelog_must_speak(changelog: str, words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        versions.refuse_changelog(changelog, "1.2.3")


@pytest.mark.parametrize("wrong", ["1.2", "v1.2.3", "01.2.3", "1.2.3-rc.1"])
def test_what_is_no_version_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stamp", "--version", wrong]) == 1
    assert f"VERSION={wrong} is not MAJOR.MINOR.PATCH" in capsys.readouterr().err


def test_a_release_needs_its_tag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--version", "999.0.0", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "there is no tag v999.0.0" in told or "the work tree differs from its commit" in told
    assert list(tmp_path.iterdir()) == []


def test_a_throw_away_clone_is_the_work_tree_as_it_is(clone: Path, tmp_path: Path) -> None:
    (clone / "uncommitted.txt").write_text("new")
    (clone / "policies/PulumiPolicy.yaml").chmod(0o755)
    shutil.rmtree(clone / "ansible")
    with pytest.raises(FileNotFoundError, match=r"galaxy\.yml"):
        tree.throw_away(clone, "1.2.3", tmp_path / "lacking")
    run("git", "checkout", "-q", "ansible", folder=clone)
    made = tree.throw_away(clone, "1.2.3", tmp_path / "made")
    assert tree.tagged(made, "1.2.3")
    assert (made / "uncommitted.txt").read_text() == "new"
    assert tree.git(clone, "status", "--porcelain"), "the work tree itself is left as it is"
    tree.export(made, "v1.2.3", tmp_path / "exported")
    assert {path.name for path in (tmp_path / "exported").iterdir()} >= {"uncommitted.txt", "pyproject.toml"}


def test_a_lock_is_followed_to_what_is_needed() -> None:
    lock = (
        "a==1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via\n    #   tulle (pyproject.toml)\n    #   d\n"
        "b==2 ; python_full_version < '3.12' \\\n    --hash=sha256:" + "1" * 64 + "\n    # via a\n"
        "c==3 \\\n    --hash=sha256:" + "2" * 64 + "\n    # via tulle (pyproject.toml)\n"
    )
    found = locked.needed(lock, ["A>=1,<2"])
    assert [(each.name, each.version) for each in found] == [("a", "1"), ("b", "2")]
    assert found[0].hashes == ("0" * 64,)
    text = locked.requirements_file(found)
    assert "# via" not in text
    assert "b==2 ; python_full_version < '3.12' \\\n    --hash=sha256:" + "1" * 64 + "\n" in text
    with pytest.raises(ReleaseError, match=r"requirements\.lock has no x: `make lock`"):
        locked.needed(lock, ["x"])


def test_what_the_linker_will_ask_for() -> None:
    told = """
 0x0000000000000001 (NEEDED)             Shared library: [libssl.so.3]
 0x0000000000000001 (NEEDED)             Shared library: [libnghttp2.so.14]
  000000: Version: 1  File: libssl.so.3  Cnt: 1
  0x0010:   Name: OPENSSL_3.0.0  Flags: none  Version: 5
  0x0020: Version: 1  File: libc.so.6  Cnt: 2
  0x0030:   Name: GLIBC_2.9  Flags: none  Version: 4
  0x0040:   Name: GLIBC_2.17  Flags: none  Version: 3
"""
    assert wheels.needs(told) == {
        "libc.so.6": ["GLIBC_2.17"], "libnghttp2.so.14": [], "libssl.so.3": ["OPENSSL_3.0.0"],
    }  # fmt: skip
