"""Building an sdist with uv, from a copy of the user's tree, in an environment without the worker's secrets.

A package dir gets a build of ours: uv's own backend, which packs every file below the package, needs nothing from a
registry, and makes the same bytes of the same files. A project has its own build.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mlengine.core.errors import PackageError
from mlengine.packaging.source_tree import SourceTree, scan
from mlengine.runtime.uv_env import index_options, uv_environment

BUILD_SECONDS = 900
CONSTRAINTS = "constraints.txt"
_WORDS = 30  # lines of the builder's that an error repeats

# What a build may know of this process: nothing of Airflow's, no credentials but the package registry's.
_ENV = frozenset(
    {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
    | {"NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NETRC"}
)
_ENV_PREFIXES = ("LC_", "UV_", "PIP_")
_SCM = re.compile(r"setuptools[-_]scm|hatch[-_]vcs")
_FIRST_ZIP_DAY = "315532800"  # 1980-01-01: the earliest that a zip file can say


def copy_tree(tree: SourceTree, target: Path) -> None:
    """Copy what goes in, and nothing else.

    :raises PackageError: if the tree changed since it was read, as its digest would not be that of the copy.
    """
    for file in tree.files:
        copy = target / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(tree.root / file.path, copy)
        except OSError as error:
            raise _changed(tree.root, file.path) from error
        copy.chmod(0o755 if file.executable else 0o644)
    copied = {file.path: file for file in scan(target).files}
    for file in tree.files:
        if copied.get(file.path) != file:
            raise _changed(tree.root, file.path)


def write_pyproject(folder: Path, package: str, requirements: Sequence[str]) -> None:
    """The build of a package dir: all of its sub-packages and data, version 0.0.0 as gcloud had it.

    The digest in the package's path tells builds apart, not the version.
    """
    name = package.strip("_").replace("_", "-").lower() or "trainer"
    lines = [
        "[build-system]",
        'requires = ["uv_build>=0.9,<1"]',
        'build-backend = "uv_build"',
        "",
        "[project]",
        f"name = {json.dumps(name)}",
        'version = "0.0.0"',
        f"dependencies = {json.dumps(list(requirements))}",
        "",
        "[tool.uv.build-backend]",
        f"module-name = {json.dumps(package)}",
        'module-root = ""',
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def build_sdist(source: Path, out: Path, origin: Path) -> Path:
    """The sdist that ``source``, a copy, builds in ``out``.

    :param origin: the user's own path, which errors name.
    :raises PackageError: with the builder's last words.
    """
    command = [_uv(), "build", "--sdist", "--out-dir", str(out), "--python", sys.executable, "--color", "never"]
    env = _environment(source)
    command += ["--no-progress", *index_options(env), str(source)]
    try:
        code, output = _run(command, env, source)
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"{origin} was not built within {BUILD_SECONDS} s",
            remedy="build it by hand with uv build --sdist, and look",
        ) from error
    sdists = sorted(out.glob("*.tar.gz"))
    if code != 0 or not sdists:
        words = _last_words(output, source, origin)
        raise PackageError(
            f"{origin} could not be built (uv build --sdist ended with code {code}):\n{words}",
            remedy=f"correct that; 'uv build --sdist {origin}' does the same by hand",
        )
    return sdists[0]


def _run(command: Sequence[str], env: Mapping[str, str], source: Path) -> tuple[int, str]:
    """Exit code and output. The builder's own children end with it, also when this task is killed."""
    process = subprocess.Popen(
        command,
        env=env,
        cwd=source,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=BUILD_SECONDS)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output.decode(errors="replace")


def add_constraints(source: Path, sdist: Path) -> None:
    """Put the project's ``constraints.txt`` at the sdist's root, where backends look for it, if the build left it out.

    Most builds do: to them it is a file that no package needs.
    """
    constraints = source / CONSTRAINTS
    whole = sdist.with_name(f"{sdist.name}.whole")
    with tarfile.open(sdist) as old:
        members = old.getmembers()
        top = members[0].name.split("/")[0]
        if not constraints.is_file() or f"{top}/{CONSTRAINTS}" in {member.name for member in members}:
            return
        with tarfile.open(whole, "w:gz") as new:
            for member in members:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
            info = tarfile.TarInfo(f"{top}/{CONSTRAINTS}")
            info.size, info.mode = constraints.stat().st_size, 0o644
            new.addfile(info, io.BytesIO(constraints.read_bytes()))
    whole.replace(sdist)


def _environment(source: Path) -> dict[str, str]:
    found = {
        key: value for key, value in os.environ.items() if key.upper() in _ENV or key.upper().startswith(_ENV_PREFIXES)
    }
    found |= {"SOURCE_DATE_EPOCH": _FIRST_ZIP_DAY, "UV_PYTHON_DOWNLOADS": "never", "PYTHONDONTWRITEBYTECODE": "1"}
    # The copy has no version control for these to ask; any version does, as the digest tells builds apart.
    texts = (source / name for name in ("pyproject.toml", "setup.py", "setup.cfg"))
    if any(_SCM.search(path.read_text(encoding="utf-8", errors="replace")) for path in texts if path.is_file()):
        found["SETUPTOOLS_SCM_PRETEND_VERSION"] = "0.0.0"
    return uv_environment(found)


def _last_words(output: str, source: Path, origin: Path) -> str:
    """The end of what the builder said, with the user's paths in it, and without the passwords of URLs."""
    output = output.replace(str(source.resolve()), str(origin)).replace(str(source), str(origin))
    output = re.sub(r"(?<=://)[^/\s@]+@", "***@", output)
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-_WORDS:])


def _uv() -> str:
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise PackageError("uv is not installed beside mlengine", remedy="pip install uv") from error


def _changed(root: Path, path: str) -> PackageError:
    return PackageError(f"{root / path} changed while it was packaged", remedy="run again when nobody writes there")
