"""What enters an image, and what does not, decides its name."""

import subprocess
from pathlib import Path

import pytest

from tests.ansible.kit import load

inputs = load("roles/images/files/inputs.py")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A work tree with the least that images are made of."""
    for path in (*inputs.BUILD, "proxy/__init__.py", "proxy/app.py", "proxy/api/names.py", "components/web.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"# {path}\n")
    (tmp_path / ".gitignore").write_text("*.so\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def tags(root: Path) -> dict[str, str]:
    files = inputs.listed(root)
    return {image: inputs.tag(root, inputs.inputs(root, image, files)) for image in inputs.IMAGES}


def test_the_same_files_give_the_same_names(tree: Path) -> None:
    assert tags(tree) == tags(tree)


def test_a_change_in_the_proxy_renames_the_proxy_alone(tree: Path) -> None:
    before = tags(tree)
    (tree / "proxy/app.py").write_text("changed\n")
    after = tags(tree)
    assert {image for image in after if after[image] != before[image]} == {"proxy"}


def test_the_contract_is_part_of_both(tree: Path) -> None:
    before = tags(tree)
    (tree / "proxy/api/names.py").write_text("changed\n")
    after = tags(tree)
    assert {image for image in after if after[image] != before[image]} == {"proxy", "control"}


def test_what_git_ignores_enters_nothing(tree: Path) -> None:
    before = tags(tree)
    (tree / "proxy/wire.cpython-311-x86_64-linux-gnu.so").write_bytes(b"compiled for another interpreter")
    (tree / "README.md").write_text("prose\n")
    assert tags(tree) == before


def test_a_new_file_counts_before_it_is_committed(tree: Path) -> None:
    before = tags(tree)
    (tree / "components/new.py").write_text("")
    assert tags(tree)["control"] != before["control"]


def test_a_tree_without_git_is_named_alike(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    inputs.stage(tree, inputs.listed(tree), copy)
    assert not (copy / ".git").exists()
    assert tags(copy) == tags(tree)


def test_a_missing_input_is_named(tree: Path) -> None:
    (tree / "requirements.lock").unlink()
    with pytest.raises(inputs.MissingInput, match=r"'requirements\.lock'"):
        inputs.inputs(tree, "proxy", inputs.listed(tree))


def test_a_staged_tree_tells_no_time(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    inputs.stage(tree, ["proxy/app.py"], copy)
    assert [path.relative_to(copy).as_posix() for path in copy.rglob("*.py")] == ["proxy/app.py"]
    assert {path.stat().st_mtime for path in (copy, *copy.rglob("*"))} == {0}
