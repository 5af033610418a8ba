"""The git metadata of a copy: git gives the same results there as in the user's clone, but cannot write to that."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mlengine.packaging.git_repository import NoRepository, Repository, find_repository


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A Trainer")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "trainer@example.com")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def make_clone(folder: Path, *options: str) -> Path:
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "task.py").write_text("one\n")
    (folder / "notes.txt").write_text("one\n")
    git(folder, "init", "-q", *options)
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "tag", "-a", "v1.0", "-m", "one")
    git(folder, "commit", "-q", "--allow-empty", "-m", "second")
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_clone(tmp_path / "clone")


def found(project: Path) -> Repository:
    repository = find_repository(project)
    assert isinstance(repository, Repository), repository
    return repository


def linked(project: Path, copy: Path) -> Path:
    """A copy of only the project, with git metadata."""
    repository = found(project)
    shutil.copytree(project, copy / repository.prefix, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True)
    repository.link(copy)
    return copy


DESCRIBE = ("describe", "--tags", "--long", "--dirty")


@pytest.mark.parametrize("prefix", [".", "trainer"])
def test_git_gives_the_same_results_in_the_copy(clone: Path, tmp_path: Path, prefix: str) -> None:
    copy = linked(clone / prefix, tmp_path / "copy")
    for question in (DESCRIBE, ("rev-parse", "HEAD"), ("ls-files",), ("log", "--oneline"), ("status", "--short")):
        assert git(copy / prefix, *question) == git(clone / prefix, *question), question
    assert git(copy, "branch", "--show-current") == "main"
    assert "notes.txt" in subprocess.run(
        ["git", "archive", "HEAD"], cwd=copy, check=True, capture_output=True
    ).stdout.decode(errors="replace")


@pytest.mark.parametrize("changed", ["notes.txt", "trainer/task.py"])
def test_a_change_anywhere_in_the_clone_makes_the_copy_dirty(clone: Path, tmp_path: Path, changed: str) -> None:
    before = found(clone / "trainer").state()
    (clone / changed).write_text("two\n")
    assert found(clone / "trainer").state() != before
    copy = linked(clone / "trainer", tmp_path / "copy")
    assert git(copy, *DESCRIBE) == git(clone, *DESCRIBE)
    assert git(copy, *DESCRIBE).endswith("-dirty")


def test_staged_files_are_listed(clone: Path, tmp_path: Path) -> None:
    (clone / "trainer" / "new.txt").write_text("x")
    git(clone, "add", "trainer/new.txt")
    git(clone, "rm", "-q", "notes.txt")
    copy = linked(clone, tmp_path / "copy")
    assert git(copy, "ls-files") == "trainer/new.txt\ntrainer/task.py"


def test_commands_in_the_copy_do_not_write_to_the_clone(clone: Path, tmp_path: Path) -> None:
    copy = linked(clone, tmp_path / "copy")
    before = {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()}
    (copy / "made.txt").write_text("by the build\n")
    git(copy, "add", "made.txt")
    git(copy, "commit", "-q", "-m", "third")
    git(copy, "tag", "v2.0")
    git(copy, "gc", "-q", "--prune=now")
    assert {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()} == before


def test_remotes_and_hooks_are_not_copied(clone: Path, tmp_path: Path) -> None:
    git(clone, "remote", "add", "origin", "https://me:hunter2@example.com/x.git")
    git(clone, "config", "core.autocrlf", "input")
    hook = clone / ".git" / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git(clone, "config", "core.fsmonitor", f"touch {tmp_path}/ran; true")
    copy = linked(clone, tmp_path / "copy")
    config = (copy / ".git" / "config").read_text()
    assert "hunter2" not in config
    assert git(copy, "config", "core.autocrlf") == "input"
    assert not (tmp_path / "ran").exists()


def test_linked_work_trees_submodules_and_shallow_clones_are_supported(clone: Path, tmp_path: Path) -> None:
    git(clone, "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "side")
    git(clone, "submodule", "add", "-q", str(clone), "sub")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{clone}", "shallow")
    for number, other in enumerate((tmp_path / "linked", clone / "sub", tmp_path / "shallow")):
        copy = linked(other, tmp_path / f"copy{number}")
        for question in (("rev-parse", "HEAD"), ("ls-files",), ("log", "--oneline"), ("tag",), ("status", "--short")):
            assert git(copy, *question) == git(other, *question), (other, question)


def test_other_hash_algorithms_and_empty_repositories_are_supported(tmp_path: Path) -> None:
    sha256 = make_clone(tmp_path / "sha256", "--object-format=sha256")
    assert git(linked(sha256, tmp_path / "copy"), *DESCRIBE) == git(sha256, *DESCRIBE)
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    (empty / "a").touch()
    git(empty, "add", "a")
    assert found(empty).state() == found(empty).state()
    assert git(linked(empty, tmp_path / "copy2"), "ls-files") == "a"


def test_file_names_that_are_not_utf8_are_supported(clone: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9.txt")
    (clone / name).write_text("x")
    git(clone, "add", "--all")
    before = found(clone).state()
    git(clone, "commit", "-q", "-m", "named")
    assert found(clone).state() != before
    assert git(linked(clone, tmp_path / "copy"), "ls-files") == git(clone, "ls-files")


def test_tags_on_other_branches_are_ignored(clone: Path) -> None:
    before = found(clone).state()
    git(clone, "checkout", "-q", "-b", "side")
    git(clone, "commit", "-q", "--allow-empty", "-m", "aside")
    git(clone, "tag", "v9.9")
    git(clone, "checkout", "-q", "main")
    assert found(clone).state() == before
    git(clone, "tag", "v1.1")
    assert found(clone).state() != before


def test_ignored_files_are_listed(clone: Path) -> None:
    (clone / ".gitignore").write_text("*.bin\n")
    for name in ("weights.bin", "cache.bin"):
        (clone / "trainer" / name).touch()
    assert found(clone / "trainer").ignored({"task.py", "weights.bin"}) == ["weights.bin"]


def test_a_folder_without_a_repository_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    nothing = find_repository(alone)
    assert isinstance(nothing, NoRepository)
    assert "git finds no repository" in nothing.reason
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    assert isinstance(find_repository(tmp_path / "bare.git"), NoRepository)
    monkeypatch.setenv("PATH", str(alone))
    nothing = find_repository(alone)
    assert isinstance(nothing, NoRepository)
    assert "git is not installed" in nothing.reason


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to another user")
@pytest.mark.parametrize("owner_of_project", ["the same", "another"])
def test_a_repository_of_another_user_is_not_used(clone: Path, owner_of_project: str) -> None:
    """A repository above the project may be another user's, for example in a shared temporary directory.

    A repository with the same owner as the project is trusted.
    """
    for path in (clone, clone / ".git"):
        os.chown(path, 12345, 12345)
    if owner_of_project == "the same":
        os.chown(clone / "trainer", 12345, 12345)
        assert found(clone / "trainer").top == clone
    else:
        nothing = find_repository(clone / "trainer")
        assert isinstance(nothing, NoRepository)
        assert "dubious ownership" in nothing.reason
