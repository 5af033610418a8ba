"""The git repository of a project: its state as an input of the build, and a ``.git`` directory for the copy.

Builds read versions and file lists from git (setuptools-scm, hatch-vcs, pbr, ``git describe``). They run on a copy of
the project, so the copy needs a ``.git`` directory. This module creates one: objects are shared with the user's
repository through ``objects/info/alternates``; refs, HEAD and index are copied; so are the settings that affect git's
output, but not remotes, their credentials, or hooks. git gives the same output in the copy as in the user's directory,
and a build cannot write to the user's repository.

Not supported: other version control systems, and objects that a partial clone has not fetched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mlengine.core.errors import PackageError

_SECONDS = 120.0
_ENV = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "LD_LIBRARY_PATH")
_SETTINGS = (
    r"^core\.(autocrlf|eol|filemode|ignorecase|symlinks|quotepath|precomposeunicode|excludesfile|attributesfile)$"
)
_COPIED = ("shallow", "info/exclude", "info/attributes", "info/grafts")  # below the common dir
_STATUS = ("status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames")
# Git LFS filters would fetch file contents; builds do not need them.
_CONFIG = '[filter "lfs"]\n\tclean = cat\n\tsmudge = cat\n\tprocess =\n\trequired = false\n'


@dataclass(frozen=True)
class NoRepository:
    """The reason why there is no usable repository."""

    reason: str


@dataclass(frozen=True)
class Repository:
    """The repository that contains a project.

    :param top: the root of the work tree.
    :param prefix: the project's path relative to ``top``; ``.`` for the root itself.
    :param common_dir: the directory of objects and refs; differs from ``git_dir`` in a linked work tree.
    """

    top: Path
    prefix: Path
    git_dir: Path
    common_dir: Path
    object_format: str

    def state(self) -> str:
        """A digest of commit, branch, tags of the history, and changed files.

        The digest does not depend on the time, or on tags that are not ancestors of the commit.
        """
        head = self._ask("rev-parse", "--verify", "--quiet", "HEAD")
        parts = [head, self._ask("symbolic-ref", "--quiet", "HEAD")]
        if head:
            fields = "--format=%(refname) %(objectname) %(*objectname)"
            parts.append(self._run("for-each-ref", "--merged=HEAD", fields, "refs/tags"))
        parts.append(self._run(*_STATUS))
        return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:40]

    def ignored(self, paths: Collection[str]) -> list[str]:
        """The project's files that git ignores; ``paths`` are relative to the project."""
        listing = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard")
        try:
            listed = self._run(*listing, cwd=self.top / self.prefix)
        except GitError:
            return []
        return sorted(set(listed.split("\0")) & set(paths))

    def link(self, copy_top: Path) -> None:
        """Give ``copy_top``, the copy of ``top``, a ``.git`` directory that gives the same answers as this repository.

        Files that are unchanged here are unchanged there, whether they were copied or not.
        """
        git_dir = copy_top / ".git"
        # Environment variables are used, because an older git rejects unknown options.
        formats = {"GIT_DEFAULT_HASH": self.object_format, "GIT_DEFAULT_REF_FORMAT": "files"}
        _git("init", "--quiet", "--template=", cwd=copy_top, env=formats)
        (git_dir / "objects" / "info").mkdir(parents=True, exist_ok=True)
        (git_dir / "objects" / "info" / "alternates").write_text(f"{self.common_dir / 'objects'}\n", encoding="utf-8")
        refs = self._run("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", "refs/remotes")
        (git_dir / "packed-refs").write_text(refs, encoding="utf-8", errors="surrogateescape")
        branch = self._ask("symbolic-ref", "--quiet", "HEAD")
        head = f"ref: {branch}" if branch else self._run("rev-parse", "HEAD").strip()
        (git_dir / "HEAD").write_text(f"{head}\n", encoding="utf-8", errors="surrogateescape")
        (git_dir / "info").mkdir(exist_ok=True)
        for name in _COPIED:
            if (self.common_dir / name).is_file():
                shutil.copyfile(self.common_dir / name, git_dir / name)
        with (git_dir / "config").open("a", encoding="utf-8") as config:
            config.write(_CONFIG + self._settings())
        self._copy_index(copy_top)

    def _settings(self) -> str:
        lines = []
        for entry in self._ask("config", "-z", "--local", "--get-regexp", _SETTINGS, strip=False).split("\0"):
            name, _, value = entry.partition("\n")
            if name:
                escaped = value.replace("\\", "\\\\").replace('"', '\\"')
                lines.append(f'[core]\n\t{name.partition(".")[2]} = "{escaped}"\n')
        return "".join(lines)

    def _copy_index(self, copy_top: Path) -> None:
        if not (self.git_dir / "index").is_file():
            return
        for index in (self.git_dir / "index", *self.git_dir.glob("sharedindex.*")):
            shutil.copyfile(index, copy_top / ".git" / index.name)
        changed = {entry[3:] for entry in self._run(*_STATUS).split("\0") if entry[1:2].strip()}
        tracked = _git("ls-files", "-z", cwd=copy_top).split("\0")
        unchanged = "".join(f"{path}\0" for path in tracked if path and path not in changed)
        _git("update-index", "-z", "--assume-unchanged", "--stdin", cwd=copy_top, stdin=unchanged)

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        return _git(*arguments, cwd=cwd or self.top, trusted=self.top)

    def _ask(self, *arguments: str, strip: bool = True) -> str:
        """The output of git, as :meth:`_run` returns it; empty if git finds nothing."""
        try:
            answer = self._run(*arguments)
        except GitError:
            return ""
        return answer.strip() if strip else answer


def find_repository(project: Path) -> Repository | NoRepository:
    """Find the repository that contains ``project``."""
    if shutil.which("git") is None:
        return NoRepository("git is not installed on this machine")
    trusted = _owned_like(project)
    fields = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--show-object-format")
    try:
        answer = _git("rev-parse", *fields, cwd=project, trusted=trusted).splitlines()
    except GitError as error:
        return NoRepository(f"git finds no repository at {project}: {error.words}")
    if len(answer) != len(fields):  # a bare repository has no work tree
        return NoRepository(f"{project} is not in the work tree of a git repository")
    top = Path(answer[0])
    common = (project / answer[2]).resolve()
    object_format = "sha256" if answer[3] == "sha256" else "sha1"  # git before 2.29 supports no other
    return Repository(top, project.relative_to(top), Path(answer[1]), common, object_format)


class GitError(PackageError):
    """git ended with an error.

    :param words: git's message.
    """

    def __init__(self, command: str, words: str) -> None:
        super().__init__(f"git {command} failed: {words}", hint="run that command in the project's directory")
        self.words = words


def _owned_like(project: Path) -> Path | None:
    """The nearest directory with a ``.git`` at or above ``project``, if both have the same owner.

    git refuses a repository of another user, because its settings can make git run programs. The owner of the project
    is trusted, as packaging runs the project's build anyway. The owner of a directory above it is not.
    """
    for folder in (project, *project.parents):
        git = folder / ".git"
        if git.exists():
            return folder if git.stat().st_uid == project.stat().st_uid else None
    return None


def _git(
    *arguments: str,
    cwd: Path,
    trusted: Path | None = None,
    stdin: str | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run one git command without hooks, file system monitor or locks, and return its output.

    :raises GitError: git failed; the error has git's message.
    """
    options = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
    if trusted is not None:
        options += ["-c", f"safe.directory={trusted}"]
    passed = {key: os.environ[key] for key in _ENV if key in os.environ}
    passed |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    command = ["git", *options, *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**passed, **env},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(arguments[0], str(error)) from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise GitError(arguments[0], words[0].removeprefix("fatal: "))
    return done.stdout
