"""A source tree: included, excluded and rejected files, and the inputs of its digest."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlengine.core.errors import PackageError
from mlengine.packaging import source_tree
from mlengine.packaging.source_tree import SourceKind

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
KEY_FILE = '{"type": "service_account", "project_id": "p", "private_key": "-----BEGIN nothing", "client_email": "a@b"}'


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    return write(
        tmp_path / "trainer",
        {
            "__init__.py": "",
            "task.py": "print('hello')\n",
            "models/__init__.py": "",
            "models/deep/__init__.py": "",
            "models/deep/net.py": "LAYERS = 3\n",
            "data/vocab.txt": "a\nb\n",
            "data/.hidden.json": "{}",
        },
    )


def test_subpackages_and_data_are_included(trainer: Path) -> None:
    tree = source_tree.scan(trainer)
    assert [file.path for file in tree.files] == [
        "__init__.py",
        "data/.hidden.json",
        "data/vocab.txt",
        "models/__init__.py",
        "models/deep/__init__.py",
        "models/deep/net.py",
        "task.py",
    ]
    assert tree.left_out == ()
    assert tree.size == 32
    source_tree.check_inits(tree)


LEFT_OUT = {
    "version control": [".git/config", ".hg/store", ".svn/entries"],
    "cache": ["__pycache__/task.cpython-311.pyc", "old.pyc", ".mypy_cache/x", ".coverage", "node_modules/a/b.js"],
    "a Python environment": [".venv/bin/python", "myenv/pyvenv.cfg", ".tox/py/x"],
    "build output": ["trainer.egg-info/PKG-INFO", ".eggs/x"],
    "an editor's or system's file": [".idea/x.xml", "task.py~", ".task.py.swp", ".DS_Store", "#task.py#"],
    "looks like a secret": [
        *(".env", ".env.production", "prod.env", "tls/server.key", "tls/SERVER.PEM", "id_rsa", "id_ed25519"),
        *(".netrc", ".pypirc", "credentials.json", "client_secret_1.json", "secrets.yaml", ".aws/credentials"),
        *("application_default_credentials.json", "store.p12", ".git-credentials", "terraform.tfstate"),
    ],
}


@pytest.mark.parametrize(("reason", "names"), LEFT_OUT.items())
def test_excluded_files_are_listed_with_the_reason(trainer: Path, reason: str, names: list[str]) -> None:
    before = source_tree.scan(trainer)
    write(trainer, dict.fromkeys(names, "x"))
    tree = source_tree.scan(trainer)
    assert tree.files == before.files
    assert tree.digest({}) == before.digest({})
    assert {left.reason for left in tree.left_out} == {reason}
    for name in names:
        assert any(left.path in {name, name.split("/")[0] + "/"} for left in tree.left_out), name


@pytest.mark.parametrize("text", [KEY_FILE, KEY, '{"type":"authorized_user","refresh_token":"1//0abcdefgh"}'])
def test_secrets_are_found_by_their_contents(trainer: Path, text: str) -> None:
    write(trainer, {"data/settings.json": text})
    tree = source_tree.scan(trainer)
    assert "data/settings.json" not in tree.paths
    [left] = tree.left_out
    assert "looks like a secret: contains" in left.reason


def test_a_secret_within_code_is_refused(trainer: Path) -> None:
    write(trainer, {"keys.py": f'KEY = """{KEY}"""\n'})
    with pytest.raises(PackageError, match=r"keys\.py looks like a secret"):
        source_tree.scan(trainer)


def test_files_that_only_resemble_secrets_are_included(trainer: Path) -> None:
    names = ["secrets.py", ".env.example", "credentials.json.template", "id_rsa.pub", "environment.yaml", "monkey.txt"]
    write(trainer, {**dict.fromkeys(names, "x"), "check.py": "if 'PRIVATE KEY' in text: raise ValueError\n"})
    write(trainer, {"build/__init__.py": "", "dist/table.csv": ""})
    assert {*names, "check.py", "build/__init__.py", "dist/table.csv"} <= source_tree.scan(trainer).paths


def test_build_output_is_excluded_but_not_a_package_called_build(trainer: Path) -> None:
    write(trainer, {"build/lib/x.py": "", "dist/a.whl": ""})
    assert not any(path.startswith(("build", "dist")) for path in source_tree.scan(trainer, project=True).paths)
    write(trainer, {"build/__init__.py": ""})
    assert "build/lib/x.py" in source_tree.scan(trainer, project=True).paths


def test_links_within_the_tree_are_replaced_by_their_targets(trainer: Path) -> None:
    (trainer / "words.txt").symlink_to("data/vocab.txt")
    (trainer / "more").symlink_to("data", target_is_directory=True)
    tree = source_tree.scan(trainer)
    assert {"words.txt", "more/vocab.txt"} <= tree.paths


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "..", ".", "nowhere"])
def test_links_to_targets_outside_the_tree_are_refused(trainer: Path, target: str) -> None:
    (trainer.parent / "outside").write_text("x")
    (trainer / "link").symlink_to(target)
    with pytest.raises(PackageError, match=r"link is a (broken )?link"):
        source_tree.scan(trainer)


def test_circular_links_are_refused(trainer: Path) -> None:
    (trainer / "data" / "models").symlink_to("../models")
    (trainer / "models" / "data").symlink_to("../data")
    with pytest.raises(PackageError, match="link to a directory that contains it"):
        source_tree.scan(trainer)


def test_a_link_does_not_include_an_excluded_file(trainer: Path) -> None:
    write(trainer, {".git/config": "[remote]", ".env": "TOKEN=1"})
    (trainer / "settings.txt").symlink_to(".env")
    (trainer / "remote.txt").symlink_to(".git/config")
    tree = source_tree.scan(trainer)
    assert tree.paths.isdisjoint({"settings.txt", "remote.txt"})
    assert len(tree.left_out) == 4


def test_pipes_are_excluded_and_do_not_block(trainer: Path) -> None:
    os.mkfifo(trainer / "pipe")
    assert source_tree.scan(trainer).left_out[0].reason == "not a regular file"


def test_a_tree_that_is_too_large_is_refused(trainer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(trainer, {"data/huge.bin": "x" * 2000})
    monkeypatch.setattr(source_tree, "MAX_BYTES", 1000)
    with pytest.raises(PackageError, match=r"too large.*data/huge\.bin"):
        source_tree.scan(trainer)


@pytest.mark.parametrize(
    ("removed", "named"),
    [("__init__.py", "trainer"), ("models/__init__.py", "trainer/models"), ("models/deep/__init__.py", "models/deep")],
)
def test_a_missing_init_is_named(trainer: Path, removed: str, named: str) -> None:
    (trainer / removed).unlink()
    with pytest.raises(PackageError, match=rf"{named} has no __init__\.py") as caught:
        source_tree.check_inits(source_tree.scan(trainer))
    assert caught.value.hint.endswith(str(trainer / removed))


def test_data_directories_need_no_init(trainer: Path) -> None:
    assert not (trainer / "data" / "__init__.py").exists()
    source_tree.check_inits(source_tree.scan(trainer))


def test_the_kind_of_a_source_is_recognised(trainer: Path, tmp_path: Path) -> None:
    assert source_tree.kind_of(trainer) is SourceKind.PACKAGE
    write(trainer, {"pyproject.toml": "[tool.ruff]\n"})
    assert source_tree.kind_of(trainer) is SourceKind.PACKAGE, (
        "a pyproject.toml with only tool settings is not a project"
    )
    write(trainer, {"pyproject.toml": "[project]\nname = 'x'\n"})
    assert source_tree.kind_of(trainer) is SourceKind.PROJECT
    old = write(tmp_path / "old", {"setup.py": ""})
    assert source_tree.kind_of(old) is SourceKind.PROJECT
    assert source_tree.kind_of(old / "setup.py") is SourceKind.ARCHIVE


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ({}, "give a package"),
        ({"task.py": ""}, "create an empty"),
        ({"trainer/__init__.py": ""}, "source/trainer"),
        ({"pyproject.toml": "[[["}, "correct that line"),
    ],
)
def test_the_error_for_a_missing_source_names_what_is_missing(tmp_path: Path, files: dict[str, str], hint: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(PackageError) as caught:
        source_tree.kind_of(write(source, files))
    assert hint in caught.value.hint
    with pytest.raises(PackageError, match="absent does not exist"):
        source_tree.kind_of(tmp_path / "absent")


@pytest.mark.parametrize("name", ["my-trainer", "1st", "class", "träiner"])
def test_a_package_name_that_cannot_be_imported_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackageError, match="cannot be imported"):
        source_tree.package_name(write(tmp_path / name, {"__init__.py": ""}))


names = st.from_regex(r"[a-z]{1,6}(\.py|\.txt)?", fullmatch=True)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=50), max_size=8)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, st.randoms())
def test_the_digest_depends_only_on_the_inputs(tmp_path: Path, files: dict[str, bytes], order: random.Random) -> None:
    """The digest covers every byte, name, executable bit and setting, but not location, write order or timestamps."""
    prefixes = {"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)}
    files = {name: data for name, data in files.items() if name not in prefixes}
    one, two = tmp_path / "one", tmp_path / "elsewhere" / "two"
    for root in (one, two):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        shuffled = list(files.items())
        order.shuffle(shuffled)
        for name, data in shuffled:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
            os.utime(root / name, (order.randrange(10**9), order.randrange(10**9)))
    digest = source_tree.scan(one).digest({"requirements": ["a"]})
    assert source_tree.scan(two).digest({"requirements": ["a"]}) == digest
    assert source_tree.scan(two).digest({"requirements": ["b"]}) != digest
    if files:
        path = two / order.choice(sorted(files))
        path.chmod(0o755)
        assert source_tree.scan(two).digest({"requirements": ["a"]}) != digest
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + b"x")
        assert source_tree.scan(two).digest({"requirements": ["a"]}) != digest
        path.write_bytes(path.read_bytes()[:-1])
        assert source_tree.scan(two).digest({"requirements": ["a"]}) == digest
        path.rename(path.with_name("renamed"))
        assert source_tree.scan(two).digest({"requirements": ["a"]}) != digest
