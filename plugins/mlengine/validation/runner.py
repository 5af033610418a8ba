"""The probe in a process of its own, with limits of time and memory, and nothing of the worker's environment.

What ends it: its own end; ``seconds``, counted from the moment it comes to the model; more resident memory than
``memory_bytes`` (the kernel refuses one process allocations beyond that; this side counts all that it started); more
than ``processes`` of these; or the end of this process (the probe's stdin is a pipe from here). It runs in a session of
its own. The whole group is ended, and whatever has left the group: all carry its mark in their environment.

It gets no credentials, no ``TF_CONFIG``, no proxy, no accelerator: a model has nothing to talk to.
Does not judge; tells a model that failed from an environment that cannot measure one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mlengine.core.errors import EnvironmentBuildError, MlengineError, ModelError
from mlengine.runtime import processes
from mlengine.runtime.env_allowlist import MARK
from mlengine.validation.saved_model import Signature
from mlengine.validation.signature import Expectation, serving_signature

PROBE = Path(__file__).with_name("probe.py")
POLL = 0.05
_FAMILY_SECONDS = 0.5  # between two looks for all that it has started
# Before these stages are over nothing of the model was touched: what fails there is not its fault.
_BEFORE_MODEL = frozenset({"", "import", "held-out data"})
_START_SECONDS = 600.0  # for those stages
_WORDS = 300  # characters of a model's own error
_PASSED_ON = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Limits:
    """What the probe may use.

    :param seconds: for the model: from its loading to the end. Importing TensorFlow on a busy machine is not its fault.
    :param memory_bytes: private memory; ``None`` sets no limit. TensorFlow alone takes about 0.6 GB.
    :param processes: that it may have at a time, with all that they start.
    :param batch: how many held-out rows are scored in one call.
    """

    seconds: float = 600.0
    memory_bytes: int | None = 4 * 1024**3
    processes: int = 64
    batch: int = 500


@dataclass(frozen=True)
class Heldout:
    """The held-out set's files on this machine. ``digest`` tells one set from another."""

    images: Path
    labels: Path
    classes: int
    digest: str = ""


@dataclass(frozen=True)
class ServedModel:
    """A SavedModel on this machine, and how it is called.

    :param expected: which tensors mean what.
    :param signature: the model's own signature of that name, with the types and shapes of its inputs.
    """

    path: Path
    expected: Expectation
    signature: Signature

    @classmethod
    def read(cls, path: Path, expected: Expectation) -> Self:
        """:raises ModelError: it has no such signature, or one without the tensors that are expected."""
        signature = serving_signature(path, expected.name)
        inputs = {expected.features} | ({expected.key} if expected.key else set())
        missing = [*(inputs - signature.inputs.keys()), *({expected.scores} - signature.outputs.keys())]
        if missing:
            raise ModelError(f"signature {expected.name!r} has no {', '.join(sorted(missing))}; it is {signature}")
        return cls(path, expected, signature)

    def to_json(self) -> dict[str, Any]:
        """As the probe reads it."""
        expected = self.expected
        return {
            "path": str(self.path),
            "signature": expected.name,
            "key": expected.key,
            "features": expected.features,
            "scores": expected.scores,
            "scale": expected.scale,
            "inputs": {name: [tensor.dtype, tensor.shape] for name, tensor in self.signature.inputs.items()},
        }


@dataclass(frozen=True)
class Measured:
    """What the probe wrote down.

    :param error: why there are no figures; a sentence. Then ``figures`` is empty.
    :param baseline: the champion's figures; empty if there was none, with ``error`` in it if it did not run here.
    :param predictions: the class of each held-out row; 65535 for none.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    labels: tuple[int, ...] = ()
    predictions: tuple[int, ...] = ()
    baseline_predictions: tuple[int, ...] = ()
    mistakes: tuple[Mapping[str, Any], ...] = ()
    digits: tuple[Mapping[str, Any], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def run_probe(
    python: Path,
    model: ServedModel,
    heldout: Heldout,
    *,
    work: Path,
    baseline: ServedModel | None = None,
    limits: Limits = Limits(),
    show: tuple[int, ...] = (),
    brief: bool = False,
) -> Measured:
    """Run ``model`` with ``python``.

    :param work: an empty folder for what the probe writes; also its home and its current folder.
    :param baseline: the champion, to be measured in the same process.
    :param show: held-out rows to return with their pixels; ``brief`` asks for those alone.
    :raises EnvironmentBuildError: that Python has no TensorFlow or numpy.
    :raises MlengineError: the probe failed before it came to the model.
    """
    out = work / "out"
    out.mkdir(parents=True)
    config = {
        "out": str(out),
        "model": model.to_json(),
        "baseline": baseline.to_json() if baseline else None,
        "images": str(heldout.images),
        "labels": str(heldout.labels),
        "classes": heldout.classes,
        "batch": limits.batch,
        "memory_bytes": limits.memory_bytes,
        "show": list(show),
        "brief": brief,
    }
    (work / "probe.json").write_text(json.dumps(config))
    started = time.monotonic()
    code, ended = _run(python, work, limits)
    return _read(out, work / "probe.log", code, ended, time.monotonic() - started)


def _run(python: Path, work: Path, limits: Limits) -> tuple[int, str]:
    """Exit code, and why this side ended it (``""`` if it ended by itself)."""
    with (work / "probe.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-I", str(PROBE), str(work / "probe.json")],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=work,
            env=_environment(work),
            start_new_session=True,
        )
    ended, deadline, at_model = "", time.monotonic() + _START_SECONDS, False
    family = 0.0
    try:
        while not ended:
            try:
                process.wait(POLL)
                break
            except subprocess.TimeoutExpired:
                if not at_model and _text(work / "out" / "stage") not in _BEFORE_MODEL:
                    deadline, at_model = time.monotonic() + limits.seconds, True
                ended = _excess(process.pid, deadline, limits, at_model=at_model)
                if not ended and time.monotonic() > family:
                    ended, family = _excess_of_all(work, limits), time.monotonic() + _FAMILY_SECONDS
    finally:
        _end(process, work)
    return process.returncode, ended


def _excess(pid: int, deadline: float, limits: Limits, *, at_model: bool) -> str:
    """Why the probe must be ended now; ``""`` if it need not."""
    if time.monotonic() > deadline:
        return f"was ended after {limits.seconds if at_model else _START_SECONDS:.0f} s"
    if limits.memory_bytes and _resident(pid) > limits.memory_bytes:
        return f"was ended for using more than {_gib(limits.memory_bytes)} of memory"
    return ""


def _excess_of_all(work: Path, limits: Limits) -> str:
    """The same of all that it has started, wherever that went."""
    family = processes.of_job(work)
    if len(family) > limits.processes:
        return f"was ended for starting more than {limits.processes} processes"
    if limits.memory_bytes and sum(_resident(process.pid) for process in family) > limits.memory_bytes:
        return f"was ended for using more than {_gib(limits.memory_bytes)} of memory in {len(family)} processes"
    return ""


def _end(process: subprocess.Popen[bytes], work: Path) -> None:
    """The whole group, and what has left it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    processes.end_all(lambda: processes.of_job(work), 0.0)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _environment(work: Path) -> dict[str, str]:
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "1"}
    return {**env, **quiet, "HOME": str(work), "TMPDIR": str(work), MARK: str(work)}


def _resident(pid: int) -> int:
    """Bytes of private resident memory; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _read(out: Path, log: Path, code: int, ended: str, seconds: float) -> Measured:
    stage = _text(out / "stage")
    written = _json(out / "model.json", {})
    error = written.get("error") if isinstance(written, dict) else {"stage": stage, "message": "no figures"}
    complete = (out / "model.json").exists() and not error
    if code == 4 and error:
        raise EnvironmentBuildError(
            f"the trainer's environment cannot load a SavedModel: {error['message']}",
            hint="let the trainer depend on tensorflow and numpy, or validate with validation_level='files'",
        )
    if not complete and not error and stage in _BEFORE_MODEL:
        raise MlengineError(
            f"the probe {ended or f'ended with code {code}'} at {stage or 'its start'}, before it came to the model:\n"
            f"{_tail(log)}",
            hint="look at the lines above; more time or memory is given by limits=",
        )
    why = ""
    if error:
        why = f"The model failed at {error['stage']}: {' '.join(error['message'].split())[:_WORDS]}"
    elif not complete:
        why = f"The model {ended or _death(code)} at {stage}."
    baseline = _json(out / "baseline.json", {})
    if complete and (ended or code) and not baseline:
        baseline = {"error": {"stage": stage, "message": f"the champion {ended or _death(code)}"}}
    return Measured(
        figures=written if complete else {},
        baseline=baseline,
        error=why,
        labels=_classes(out / "labels.u16"),
        predictions=_classes(out / "model.u16") if complete else (),
        baseline_predictions=_classes(out / "baseline.u16"),
        mistakes=tuple(_json(out / "mistakes.json", [])) if complete else (),
        digits=tuple(_json(out / "digits.json", [])) if complete else (),
        environment=_json(out / "environment.json", {}),
        seconds=seconds,
    )


def _death(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = ", as happens when the memory limit is reached" if name in {"SIGABRT", "SIGKILL", "SIGSEGV"} else ""
        return f"crashed its process ({name}{hint})"
    return f"ended its process with code {code}"


def _classes(path: Path) -> tuple[int, ...]:
    numbers = array("H")
    if path.exists():
        numbers.frombytes(path.read_bytes())
    return tuple(numbers)


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else default


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
