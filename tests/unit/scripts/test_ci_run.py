"""``.ci/run`` installs missing software. The package manager and ``make`` are fakes that record their arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[3] / ".ci" / "run"
THERE = ("dirname", "git")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with a few commands and root privileges, whose package sources do not have gcloud."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in THERE:
        found = shutil.which(name)
        assert found
        (commands / name).symlink_to(found)
    command(tmp_path, "id", "echo 0")
    command(tmp_path, "python3", "exit 0")  # every import succeeds
    command(tmp_path, "make", 'echo "make $* CI=$CI" >>calls')
    command(tmp_path, "apt-get", 'echo "apt-get $*" >>calls')
    command(tmp_path, "apt-cache", "exit 100")
    (tmp_path / ".ci").mkdir()
    shutil.copy(RUN, tmp_path / ".ci" / "run")
    return tmp_path


def command(machine: Path, name: str, does: str) -> None:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)


def run(machine: Path) -> tuple[int, list[str], str]:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, str(machine / ".ci" / "run"), "ARGS=-x"],
        env={"PATH": str(machine / "bin"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    calls = machine / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stderr


def test_the_browser_is_installed_and_skips_are_limited(machine: Path) -> None:
    code, calls, said = run(machine)
    assert code == 0
    assert calls == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends chromium chromium-driver",
        "make test ARGS=-x CI=true",
    ]
    assert "google-cloud-cli is in no package source of this machine; its tests are skipped" in said


def test_gcloud_is_installed_if_apt_has_it(machine: Path) -> None:
    command(machine, "chromium", "")
    command(machine, "apt-cache", "exit 0")
    assert run(machine)[1] == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends google-cloud-cli",
        "make test ARGS=-x CI=true",
    ]


def test_a_machine_that_has_everything_needs_no_package_manager(machine: Path) -> None:
    for name in ("google-chrome", "gcloud"):
        command(machine, name, "")
    assert run(machine)[:2] == (0, ["make test ARGS=-x CI=true"])


def test_without_root_the_missing_packages_are_named(machine: Path) -> None:
    command(machine, "id", "echo 1000")
    code, calls, said = run(machine)
    assert (code, calls) == (1, [])
    assert "missing on this machine: chromium chromium-driver; install them and run again" in said


def test_an_unreachable_package_index_fails_only_required_packages(machine: Path) -> None:
    command(machine, "apt-get", 'echo "apt-get $*" >>calls; exit 100')
    assert run(machine)[:2] == (1, ["apt-get update -qq"])
    (machine / "calls").unlink()
    command(machine, "chromium", "")
    assert run(machine)[:2] == (0, ["apt-get update -qq", "make test ARGS=-x CI=true"])
