"""The setup: the version of uv, the choice of Python, and when there is nothing to do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import bootstrap

ROOT = Path(__file__).resolve().parents[3]


def test_uv_is_pinned_by_the_lock_with_hashes() -> None:
    version, requirement = bootstrap.uv_requirement(bootstrap.LOCKS["run"].read_text(encoding="utf-8"))
    first, *hashes = requirement.splitlines()
    assert first == f"uv=={version} \\"
    assert len(hashes) > 5
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)
    assert not requirement.endswith("\\")


def test_a_lock_without_uv_is_refused() -> None:
    with pytest.raises(bootstrap.SetupError, match="does not contain uv"):
        bootstrap.uv_requirement("uvicorn==1.0 \\\n    --hash=sha256:00\n")


def test_the_second_call_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _an_environment(tmp_path, monkeypatch, "dev")
    monkeypatch.setattr(bootstrap, "_run", _fails)
    bootstrap.ensure("dev")
    bootstrap.ensure("run")  # the environment for development is sufficient for running


def test_a_changed_lock_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _an_environment(tmp_path, monkeypatch, "run")
    ran: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "_run", ran.append)
    monkeypatch.setattr(bootstrap, "ensure_uv", lambda _: "uv")
    bootstrap.ensure("dev")  # the environment for running is not sufficient for development
    assert [command[1:3] for command in ran] == [["pip", "sync"], ["pip", "install"]]
    assert str(bootstrap.LOCKS["dev"]) in ran[0]
    assert "--require-hashes" in ran[0]
    assert "--offline" in ran[1]
    ran.clear()
    bootstrap.ensure("run")
    assert ran == []


def test_an_interrupted_setup_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _an_environment(tmp_path, monkeypatch, "run")
    monkeypatch.setattr(bootstrap, "_run", _fails)
    monkeypatch.setattr(bootstrap, "ensure_uv", lambda _: "uv")
    for _ in range(2):  # the second call resumes the setup
        with pytest.raises(AssertionError):
            bootstrap.ensure("dev")


def test_an_environment_that_make_did_not_set_up_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _an_environment(tmp_path, monkeypatch, "run")
    bootstrap.STAMP.unlink()
    monkeypatch.setattr(bootstrap, "_run", _fails)
    with pytest.raises(bootstrap.SetupError, match="was not created by make"):
        bootstrap.ensure("run")


def test_an_interrupted_installer_is_recreated_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(bootstrap, "_run", lambda command: None)
    version, _ = bootstrap.uv_requirement(bootstrap.LOCKS["run"].read_text(encoding="utf-8"))
    half, other = tmp_path / "tools" / f"uv-{version}" / "half", tmp_path / "tools" / "mine" / "file"
    for path in (half, other):
        path.parent.mkdir(parents=True)
        path.touch()
    bootstrap.ensure_uv(sys.executable)
    assert not half.exists()
    assert other.exists()


@pytest.mark.parametrize("module", ["pip", "ensurepip"])
def test_an_installer_with_a_truncated_file_is_recreated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(bootstrap, "_has", lambda _, name: name == module)
    contents = ["a par", "a program"]

    def install(command: list[str]) -> None:
        if "pip" not in command:
            return  # creates the venv with ensurepip
        scripts = Path(command[-1]) / "bin" if module == "pip" else Path(command[0]).parent
        scripts.mkdir(parents=True)
        (scripts / "uv").write_text(contents.pop(0))
        if contents:
            raise KeyboardInterrupt

    monkeypatch.setattr(bootstrap, "_run", install)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.ensure_uv(sys.executable)
    for _ in range(2):  # the second call installs nothing
        assert Path(bootstrap.ensure_uv(sys.executable)).read_text() == "a program"
    assert len(list(bootstrap.TOOLS.iterdir())) == 1


def test_linter_settings_do_not_change_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "pyproject.toml"
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    project.write_text('[project]\nname = "a"\n[tool.ruff]\nline-length = 100\n')
    before = bootstrap.inputs_digest("run")
    project.write_text('[project]\nname = "a"\n[tool.ruff]\nline-length = 120\n')
    assert bootstrap.inputs_digest("run") == before
    project.write_text('[project]\nname = "b"\n')
    assert bootstrap.inputs_digest("run") != before


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free disk space"), (errno.EACCES, "correct the owner and the permissions")]
)
def test_a_clone_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, advice: str
) -> None:
    def fail(_: str) -> None:
        raise OSError(number, os.strerror(number), ".venv")

    monkeypatch.setattr(bootstrap, "ensure", fail)
    assert bootstrap.main(["run"]) == 1
    printed = capsys.readouterr().err
    assert f"bootstrap: [Errno {number}] {os.strerror(number)}: '.venv'\n  What to do: {advice}" in printed


def test_the_error_for_an_old_python_has_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(bootstrap.SetupError, match=r"3\.11 to 3\.13 is needed(.|\n)*What to do"):
        bootstrap.find_python()


def test_an_old_python_starts_a_newer_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stamp is not read, because that needs tomllib."""
    _an_environment(tmp_path, monkeypatch, "dev")
    newer = tmp_path / "python3.12"
    newer.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo 3.12.1; else echo "$@" > {tmp_path}/started; fi\n')
    newer.chmod(0o755)
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    monkeypatch.setattr(bootstrap, "inputs_digest", _fails)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    bootstrap.ensure("dev")
    assert (tmp_path / "started").read_text().split() == [str(ROOT / "scripts" / "bootstrap.py"), "dev"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(bootstrap.SetupError, match=r"3\.11 to 3\.13 is needed"):
        bootstrap.ensure("dev")


def test_the_error_for_a_python_without_ensurepip_and_pip_has_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "TOOLS", tmp_path / ".mlengine" / "tools")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "_has", lambda *_: False)
    with pytest.raises(bootstrap.SetupError, match="python3-venv"):
        bootstrap.ensure_uv(sys.executable)
    assert list((tmp_path / ".mlengine" / "tools").iterdir()) == []


def test_the_locks_name_no_registry() -> None:
    for lock in bootstrap.LOCKS.values():
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text


def test_the_development_lock_includes_the_runtime_lock() -> None:
    """The lock file for development contains every version in the lock file for running."""
    run, dev = (_versions(lock) for lock in bootstrap.LOCKS.values())
    assert run.items() <= dev.items()


def test_bootstrap_runs_without_a_home_directory() -> None:
    """The script runs if HOME is not set."""
    env = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-I", str(ROOT / "scripts" / "bootstrap.py"), "nonsense"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 2
    assert "run|dev" in done.stderr


def _an_environment(root: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    venv = root / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(bootstrap, "VENV", venv)
    monkeypatch.setattr(bootstrap, "STAMP", venv / "stamp")
    bootstrap.STAMP.write_text(json.dumps({"kind": kind, "digest": bootstrap.inputs_digest(kind)}))


def _fails(command: list[str]) -> None:
    raise AssertionError(command)


def _versions(lock: Path) -> dict[str, str]:
    lines = lock.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith(" ")]
    return {" ".join(pair[:1]): pair[1] for pair in pairs if len(pair) == 2}
