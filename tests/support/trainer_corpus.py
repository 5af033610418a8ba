"""Packages each project below ``tests/trainers``, and runs it on the local backend and in a container.

Each has an ``expect.toml``::

    about = "…"                    what the project is an example of
    source = "project"             what to package, relative to the folder; a list for several; default "project"
    archive = "wheel"              or "sdist": build this from the source first, and package the result
    git_tag = "v1.0"               make the folder a git repository with this tag
    module, args, requirements     as in package_trainer and in a job

    [package]                      if it can be packaged:
    names = ["…"]                  the file names of the packages
    files, absent = ["…"]          files that the first package contains, and files that it must not contain
    left_out = ["…"]               files that packaging reports as left out

    [run]                          if it runs in both places:
    prints = "…"                   a line of its output
    installs = ["name==version"]   some of the installed packages

    [refused]                      if it fails:
    stage = "package"              or "environment", or "run": the stage that fails
    words = ["…"]                  parts of that stage's error in both places
    uv, pip = ["…"]                parts of the error that only this installer prints
    hint = "…"                     part of the error's hint
    exit_code = 1                  the trainer's exit code
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from mlengine.backends import Submission
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex import package_checks
from mlengine.core.errors import MlengineError
from mlengine.core.job import JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.packaging.publish import PackagedTrainer, package_trainer
from mlengine.runtime.constraint_lines import normal_name
from mlengine.storage.client import Storage
from tests.support import local_jobs as local
from tests.support import vertex_container

FOLDER = Path(__file__).resolve().parents[1] / "trainers"
_GIT = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")


@dataclass(frozen=True)
class Package:
    names: list[str]
    files: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    prints: str
    installs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Refused:
    stage: str
    words: list[str] = field(default_factory=list)
    uv: list[str] = field(default_factory=list)
    pip: list[str] = field(default_factory=list)
    hint: str = ""
    exit_code: int | None = None


@dataclass(frozen=True)
class Case:
    """A project and its expected outcome."""

    folder: Path
    about: str
    module: str
    source: list[str]
    archive: str = ""
    git_tag: str = ""
    args: list[str] = field(default_factory=list)
    requirements: list[str] = field(default_factory=list)
    package: Package | None = None
    run: Run | None = None
    refused: Refused | None = None

    @classmethod
    def read(cls, folder: Path) -> Case:
        """Read a case from the ``expect.toml`` in ``folder``.

        :raises TypeError: a field is unknown or missing.
        """
        data: dict[str, Any] = tomllib.loads((folder / "expect.toml").read_text(encoding="utf-8"))
        source = data.pop("source", "project")
        for name, kind in (("package", Package), ("run", Run), ("refused", Refused)):
            if name in data:
                data[name] = kind(**data[name])
        return cls(folder, source=[source] if isinstance(source, str) else source, **data)


@dataclass(frozen=True)
class Ended:
    """How a trainer ended in one place.

    :param refusal: why nothing ran; "" if something did.
    :param installed: the installed packages as ``name==version``, without pip.
    """

    refusal: str = ""
    exit_code: int | None = None
    output: str = ""
    installed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What happened to a case."""

    packaged: PackagedTrainer | None = None
    refusal: MlengineError | None = None
    local: Ended | None = None
    cloud: Ended | None = None


@dataclass(frozen=True)
class Places:
    """The two places in which cases run: the local backend, and a container.

    :param scratch: an empty folder.
    """

    storage: Storage
    bucket: str
    backend: LocalBackend
    scratch: Path

    def run(self, case: Case) -> Outcome:
        """Package the case, and run the packages in both places."""
        work = self.scratch / case.folder.name
        shutil.copytree(case.folder, work)
        if case.git_tag:
            _make_repository(work / case.source[0], case.git_tag)
        sources = [_archive(case.archive, work / path, work) if case.archive else work / path for path in case.source]
        try:
            packaged = package_trainer(
                sources,
                storage=self.storage,
                staging=self.bucket,
                module=case.module,
                requirements=case.requirements,
            )
        except MlengineError as error:
            return Outcome(refusal=error)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        spec = TrainingSpec(case.module, packaged.uris, tuple(case.args), python_version=version)
        name = case.folder.name
        return Outcome(packaged, None, self._local(name, spec), self._cloud(name, spec))

    def _local(self, name: str, spec: TrainingSpec) -> Ended:
        job_dir = f"{self.bucket}/local/{name}"
        key = hashlib.sha256(name.encode()).hexdigest()[:40]
        handle = self.backend.submit(Submission(key, name, 1, job_dir, spec))
        status = local.until_ended(self.backend, handle)
        lines = [line for line in local.texts(self.backend, handle) if line.startswith("chief-0: ")]
        output = "\n".join(line.removeprefix("chief-0: ") for line in lines)
        installed = self._installed(job_dir)
        failure = status.failure
        if not installed:
            return Ended(refusal=failure.message if failure else status.detail)
        code = 0 if status.state is JobState.SUCCEEDED else failure.exit_code if failure else None
        return Ended("", code, output, installed)

    def _cloud(self, name: str, spec: TrainingSpec) -> Ended:
        job_dir = f"{self.bucket}/cloud/{name}"
        try:
            package_checks.check(name, vertex_container.request(spec, job_dir).body, spec.package_uris, self.storage)
        except MlengineError as error:
            return Ended(refusal=str(error))
        image = vertex_container.make_image(self.scratch / "images" / name)
        env = {"STORAGE_EMULATOR_HOST": os.environ["STORAGE_EMULATOR_HOST"]}
        done = vertex_container.start(image, spec, env, job_dir=job_dir)
        shutil.rmtree(image)
        installed = self._installed(job_dir)
        output = done.stdout + done.stderr
        return Ended("", done.returncode, output, installed) if installed else Ended(refusal=output)

    def _installed(self, job_dir: str) -> tuple[str, ...]:
        uri = JobDir(job_dir).environment
        if not self.storage.exists(uri):
            return ()
        lines = self.storage.read(uri).decode().splitlines()
        return tuple(
            sorted(
                f"{normal_name(line.partition('==')[0])}=={line.partition('==')[2]}"
                for line in lines
                # An image has pip; an environment that uv created does not.
                if not line.startswith(("#", "pip=="))
            )
        )


def cases() -> list[Case]:
    """All cases, by name."""
    return [Case.read(path.parent) for path in sorted(FOLDER.glob("*/expect.toml"))]


def _make_repository(folder: Path, tag: str) -> None:
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Begin"], ["tag", tag]):
        subprocess.run(["git", *_GIT, *words], cwd=folder, check=True, capture_output=True)


def _archive(kind: str, source: Path, work: Path) -> Path:
    command = [find_uv_bin(), "build", "--quiet", f"--{kind}", "--out-dir", str(work / "made")]
    subprocess.run([*command, "--python", sys.executable, str(source)], check=True)
    return next(path for path in (work / "made").iterdir() if path.suffix in {".whl", ".gz"})
