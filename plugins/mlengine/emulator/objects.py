"""Makes local copies of the Cloud Storage objects that a command names by a path below ``/gcs``.

Vertex AI mounts each bucket at ``/gcs/BUCKET``. This machine has no such mount. An object whose path occurs in a
command, an argument or a variable is downloaded before the job starts, and the path is replaced by the path of the
copy. Google's SDK passes the package of ``CustomJob.from_local_script`` in this way.

Directories, and paths that the program builds itself, are not supported. Files that the program writes are not
uploaded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlengine.core.errors import StorageError
from mlengine.emulator.adapter import Task
from mlengine.storage.client import Storage

MAX_BYTES = 1 << 30
_PATH = re.compile(r"(?<![\w./-])/gcs/([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/((?:[^\s'\"`;&|<>()$*?\\,:]|:(?!/))+)")


@dataclass
class ObjectCopies:
    """The local copies of one job's objects.

    :param storage: the client that downloads the objects.
    :param folder: the folder for the copies.
    :param notes: messages for the job's log.
    """

    storage: Storage
    folder: Path
    notes: list[str] = field(default_factory=list)
    _copies: dict[str, Path | None] = field(default_factory=dict)

    def localized(self, task: Task) -> Task:
        """The task with its paths replaced by those of the local copies.

        :raises StorageUnavailableError: Cloud Storage cannot be reached.
        """
        return Task(self._words(task.command), [self._variable(variable) for variable in task.env])

    def _words(self, words: Sequence[str]) -> list[str]:
        return [_PATH.sub(self._replacement, word) for word in words]

    def _variable(self, variable: Mapping[str, str]) -> dict[str, str]:
        (value,) = self._words([variable.get("value", "")])
        return {**variable, "value": value}

    def _replacement(self, match: re.Match[str]) -> str:
        uri = f"gs://{match[1]}/{match[2]}"
        if uri not in self._copies:
            problem = self._problem(uri, match[2])
            target = self.folder / match[1] / match[2]
            if problem:
                self.notes.append(f"{match[0]} stays as it is: buckets are not mounted here, and {problem}")
            else:
                self.storage.download(uri, target)
                self.notes.append(f"{match[0]} is a copy of {uri}: buckets are not mounted here")
            self._copies[uri] = None if problem else target
        return str(self._copies[uri] or match[0])

    def _problem(self, uri: str, path: str) -> str:
        """Why the object cannot be copied; empty if it can."""
        if any(part in {"", ".", ".."} for part in path.split("/")):
            return f"{uri} is not an object"
        if shlex.quote(str(self.folder)) != str(self.folder):
            return f"a shell would split the path of its copy in {self.folder}"
        try:
            stat = self.storage.stat(uri)
        except StorageError as error:
            if error.retryable:
                raise
            return error.message
        if stat is None:
            return f"there is no object {uri}"
        if stat.size > MAX_BYTES:
            return f"{uri} has {stat.size} bytes; at most {MAX_BYTES} are copied"
        return ""
