"""``make clean`` removes what make created, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from scripts import clean


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone."""
    made = tmp_path / "clone"
    made.mkdir()
    monkeypatch.setattr(clean, "ROOT", made)
    return made


def put(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_files_created_by_make_are_deleted(root: Path) -> None:
    put(
        root,
        ".mlengine/data/gcs/object",
        ".venv/.mlengine-stamp",
        ".venv/bin/python",
        ".ruff_cache/x",
        ".import_linter_cache/x",
    )
    put(root, "plugins/__pycache__/a.pyc", "dist/mlengine-1.0-py3-none-any.whl", "dist/.gitignore")
    kept = put(root, "plugins/a.py")
    assert clean.main() == 0
    assert [path for path in root.rglob("*") if path.is_file()] == kept
    assert not (root / "dist").exists()


def test_files_of_the_user_are_kept(root: Path) -> None:
    kept = put(root, ".venv/bin/python", "dist/mine-1.0.tar.gz", "build/lib/x", "my_trainer/mine.egg-info/PKG-INFO")
    kept += put(root.parent, "elsewhere/__pycache__/x.pyc")
    (root / "link").symlink_to(root.parent / "elsewhere")
    assert clean.main() == 0
    assert all(path.exists() for path in kept)


def test_a_directory_that_is_a_link_is_reported_and_not_followed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On another disk, for example."""
    (kept,) = put(root.parent, "disk/data/gcs/object")
    (root / ".mlengine").symlink_to(root.parent / "disk")
    assert clean.main() == 1
    assert f"clean: {root / '.mlengine'} is a link to {root.parent / 'disk'}\n" in capsys.readouterr().err
    assert kept.exists()
    process = subprocess.Popen(["sleep", "600"], cwd=kept.parent)
    try:
        assert clean.main() == 1
        assert f"processes of this clone are alive: {process.pid}\n" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()


def test_a_directory_that_cannot_be_deleted_is_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory of another user, for example."""
    put(root, ".mlengine/data/gcs/object")
    monkeypatch.setattr("os.rmdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert clean.main() == 1
    assert f"clean: {root / '.mlengine'} could not be deleted completely\n" in capsys.readouterr().err


def test_nothing_is_deleted_while_make_run_is_running(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kept,) = put(root, ".mlengine/data/lock")
    monkeypatch.setattr(clean, "_locked", lambda: True)
    assert clean.main() == 1
    assert kept.exists()
