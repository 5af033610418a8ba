"""Reads the measurements of the scoring process from the files that it wrote."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import EnvironmentBuildError, MlengineError

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

# In these stages the model has not been loaded: a failure is not caused by the model.
BEFORE_MODEL = frozenset({"", "import", "held-out data"})
_MAX_ERROR_LENGTH = 600  # characters of the error that the model raised


@dataclass(frozen=True)
class Measured:
    """The measurements of the scoring process.

    :param figures: the model's measurements; empty if it failed.
    :param baseline: the champion's measurements; empty if there is no champion, and ``error`` if it failed.
    :param error: a message that says why the model failed; empty if it did not.
    :param outputs: the model's outputs for the held-out rows, float64 (rows, values); ``None`` if it failed.
    :param baseline_outputs: the champion's outputs, in the same form.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    outputs: Matrix | None = None
    baseline_outputs: Matrix | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def read_measured(work: Path, kind: str, code: int, kill_reason: str) -> Measured:
    """Read the files of an ended process.

    :param work: the working directory of the process.
    :param kind: the kind of the model.
    :param code: the exit code of the process.
    :param kill_reason: the reason why the process was killed; empty if it ended by itself.
    :raises EnvironmentBuildError: the environment lacks the model's framework or NumPy.
    :raises MlengineError: the process failed before it loaded the model.
    """
    out = work / "out"
    stage = read_text(out / "stage")
    written = _json(out / "model.json", {})
    error = written.get("error") if isinstance(written, dict) else {"stage": stage, "message": "no measurements"}
    complete = (out / "model.json").exists() and not error
    if code == 4 and error:
        raise EnvironmentBuildError(
            f"the trainer's environment cannot load the model ({kind}): {error['message']}",
            hint="add the model's framework and numpy to the trainer's dependencies, or use validation_level='files'",
        )
    if not complete and not error and stage in BEFORE_MODEL:
        raise MlengineError(
            f"the scoring process {kill_reason or f'exited with code {code}'} at {stage or 'its start'}, before it"
            f" loaded the model:\n{_tail(work / 'scoring.log')}",
            hint="see its last lines above; time_limit_seconds and memory_limit_gib set its limits",
        )
    reason = ""
    if error:
        reason = f"The model failed at {error['stage']}: {' '.join(error['message'].split())[:_MAX_ERROR_LENGTH]}"
    elif not complete:
        reason = f"The model {kill_reason or _exit_reason(code)} at {stage}."
    baseline = _json(out / "baseline.json", {})
    if complete and (kill_reason or code) and not baseline:
        baseline = {"error": {"stage": stage, "message": f"the champion {kill_reason or _exit_reason(code)}"}}
    return Measured(
        figures=written if complete else {},
        baseline=baseline,
        error=reason,
        outputs=_matrix(out / "model.npy") if complete else None,
        baseline_outputs=_matrix(out / "baseline.npy"),
        environment=_json(out / "environment.json", {}),
    )


def _exit_reason(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = ", possibly because it reached the memory limit" if name in {"SIGABRT", "SIGKILL", "SIGSEGV"} else ""
        return f"crashed its process ({name}{hint})"
    return f"exited with code {code}"


def _matrix(path: Path) -> Matrix | None:
    import numpy as np

    return np.load(path) if path.exists() else None


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else default


def read_text(path: Path) -> str:
    """The content of a text file; empty if there is no such file."""
    return path.read_text() if path.exists() else ""


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
