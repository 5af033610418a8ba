"""Tests the Python that a replica of another client's job gets: pip modifies that one and not the user's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlengine.emulator import replica
from mlengine.runtime.env_allowlist import MARK
from tests.support import local_jobs

pytestmark = pytest.mark.integration

SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host whose ``PATH`` has fake Pythons and pips; each creates a file when it is run."""
    folder = tmp_path / "host"
    for directory, names in {
        "bin": ("python", "python3", "python3.12", "pip", "pip3", "pip3.11", "conda", "easy_install", "tool"),
        "venv/bin": ("python3", "pip3", "other-tool"),
        "shims": ("python3.9", "shim"),
    }.items():
        (folder / directory).mkdir(parents=True)
        for name in names:
            program = folder / directory / name
            program.write_text(f"#!/bin/sh\ntouch {folder}/used-{name}\necho host $0\n")
            program.chmod(0o755)
    (folder / "venv" / "pyvenv.cfg").touch()
    home = folder / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text("[global]\nno-index = true\n")
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def start(host: Path, scratch: Path, *command: str, **env: str) -> str:
    """Run a command as the launcher starts a replica, and return its output."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    pools = {"chief": {"command": list(command), "env": variables}}
    plan = {"api": "vertex", "pools": pools, "dirs": {}, "job": {}}
    path = os.pathsep.join([*(str(host / name) for name in ("bin", "venv/bin", "shims")), "/usr/bin", "/bin"])
    done = subprocess.run(
        [sys.executable, replica.__file__, json.dumps(plan), "--job-dir", "gs://added/by/launcher"],
        env={"PATH": path, "HOME": str(host / "home"), MARK: "job", "MLENGINE_SCRATCH": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def own_python() -> set[str]:
    """The packages installed in the Python that runs this test."""
    folders = [Path(sys.prefix) / "bin", *Path(sys.prefix).glob("lib/python*/site-packages")]
    return {str(path) for folder in folders for path in folder.iterdir()}


def test_pip_changes_only_the_replicas_own_python(host: Path, scratch: Path, tmp_path: Path) -> None:
    wheel = local_jobs.thing_wheel(tmp_path)
    installs = [
        f"pip install -q --user {wheel}",
        f"pip3 install -q --user --force-reinstall {wheel}",
        f"python3 -m pip install -q --force-reinstall --user {wheel}",
        f"python -I -m pip install -q --force-reinstall {wheel}",
    ]
    before = snapshot(host), own_python()
    script = " && ".join(f"{install} && python3 -m thing" for install in installs)
    assert start(host, scratch, "sh", "-c", script) == f"thing in {scratch}/.container/python\n" * len(installs)
    assert (snapshot(host), own_python()) == before
    assert subprocess.run([sys.executable, "-c", "import thing"], capture_output=True, check=False).returncode == 1


def test_a_restarted_replica_gets_a_new_python(host: Path, scratch: Path, tmp_path: Path) -> None:
    script = "python3 -c 'import thing' 2>/dev/null && echo old; pip install -q $0 && echo installed"
    for _ in range(2):
        assert start(host, scratch, "sh", "-c", script, str(local_jobs.thing_wheel(tmp_path))) == "installed\n"


def test_absolute_paths_of_the_images_python_or_pip_are_replaced(host: Path, scratch: Path) -> None:
    for program, args in (("/usr/bin/python3", ("-m", "pip")), (f"{host}/bin/pip3", ()), ("/opt/conda/bin/pip", ())):
        assert f"from {scratch}/.container/python/" in start(host, scratch, program, *args, "--version")


def test_the_hosts_pythons_are_not_on_the_path(host: Path, scratch: Path) -> None:
    names = "python3.12 pip3.9 conda easy_install other-tool shim"
    found = start(host, scratch, "sh", "-c", f"which {names}; which python3 pip tool sh")
    assert re.findall(r"\.container/(\S+)", found) == ["python/bin/python3", "python/bin/pip", "bin/tool", "bin/sh"]
    assert not list(host.glob("used-*"))


def test_home_and_user_base_are_the_replicas_own(host: Path, scratch: Path) -> None:
    show = f"{SHOW}; import site; assert site.getuserbase().startswith(os.environ['HOME'])"
    shown = start(host, scratch, "python3", "-c", show, PYTHONUSERBASE="/root/.local", PATH="/usr/bin", PYTHONHOME="/x")
    env = json.loads(shown)[1]
    assert env["HOME"] == f"{scratch}/.container/home"
    assert env["PATH"].startswith(f"{scratch}/.container/")
    assert env["PIP_CONFIG_FILE"] == f"{host}/home/.config/pip/pip.conf"


def test_packages_of_the_jobs_environment_can_be_imported(host: Path, scratch: Path) -> None:
    assert start(host, scratch, "python3", "-c", "import yaml; print(yaml.__file__)").startswith(sys.prefix)


def test_user_options_of_other_programs_are_kept(host: Path, scratch: Path, tmp_path: Path) -> None:
    script = tmp_path / "pipeline.py"
    script.write_text("import sys; print(sys.argv[1:])")
    assert start(host, scratch, "python3", str(script), "pip", "--user") == "['pip', '--user']\n"
