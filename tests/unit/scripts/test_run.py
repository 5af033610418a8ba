"""The output of ``make run``, and the stop of its stack."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripts import run, stack
from scripts.follow import job_line
from scripts.run import champion_line

from mlengine.core.errors import StackError
from mlengine.core.job import JobHandle, JobState, JobStatus


@pytest.mark.parametrize(
    ("champion", "line"),
    [
        (
            {"metric": "accuracy", "metric_value": 0.98765, "dataset": {"version": "2026-11-01"}},
            "Champion: no. 3, job mnist_1, accuracy 0.9877, trained on 2026-11-01",
        ),
        (
            {"metric": "", "metric_value": None, "dataset": {}},
            "Champion: no. 3, job mnist_1, not measured, trained on an unnamed version",
        ),
    ],
)
def test_a_champion_without_metric_or_dataset_is_shown(champion: dict[str, Any], line: str) -> None:
    assert champion_line({"serial": 3, "job_id": "mnist_1", **champion}) == line


@pytest.mark.parametrize(
    ("state", "detail", "line"),
    [
        (JobState.QUEUED, "the launcher is starting", "job mnist_1: QUEUED; the launcher is starting"),
        (JobState.QUEUED, "", "job mnist_1: QUEUED"),
        (JobState.RUNNING, "3 of 3 replicas run", "job mnist_1: RUNNING"),
    ],
)
def test_a_queued_job_is_shown_with_the_reason_that_its_backend_gives(state: JobState, detail: str, line: str) -> None:
    assert job_line(JobStatus(JobHandle("local", "j", "mnist_1", 1, "gs://b/mnist/mnist_1"), state, detail)) == line


class RunningStack:
    """A stack that records its stop. A signal arrives on the first use of its Airflow."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        self.stopped = False
        self.moved: list[str] = []

    @property
    def airflow(self) -> SimpleNamespace:
        os.kill(os.getpid(), self.number)
        return SimpleNamespace()

    def stop(self, _: object) -> list[str]:
        self.stopped = True
        return []


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Any]], int]]:
    """A function that calls ``make run`` with a replacement for the start of the stack.

    The signal handlers are restored.
    """
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in stack.STOP_SIGNALS}
    monkeypatch.setattr(stack, "DATA", tmp_path)

    def call(start: Callable[..., Any]) -> int:
        monkeypatch.setattr(stack, "start", start)
        return run.main(["--no-train", "--once"])

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", stack.STOP_SIGNALS)
def test_a_signal_right_after_the_start_stops_the_stack(
    make_run: Callable[[Callable[..., Any]], int], number: signal.Signals
) -> None:
    running = RunningStack(number)
    assert make_run(lambda *_, **__: running) == 130
    assert running.stopped


def test_ctrl_c_stops_the_stack_without_a_reader_of_the_output(
    make_run: Callable[[Callable[..., Any]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ``make run | tee log``, Ctrl-C also ends ``tee``."""
    running = RunningStack(signal.SIGINT)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)

        def start(*_: object, **__: object) -> RunningStack:
            os.close(reader)
            return running

        assert make_run(start) == 130
    assert running.stopped


def test_a_closed_terminal_does_not_stop_the_stack_under_nohup(
    make_run: Callable[[Callable[..., Any]], int],
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def start(*_: object, **__: object) -> RunningStack:
        os.kill(os.getpid(), signal.SIGHUP)
        raise StackError("the start went on")

    assert make_run(start) == 1


def test_predictions_that_take_too_long_do_not_stop_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_PREDICT_SECONDS", 0.01)
    running: Any = SimpleNamespace(bucket="gs://b", airflow=SimpleNamespace(env=dict(os.environ)))
    assert run._predictions(running, "m") == ["none after 0 s; to try again: mlengine models predict m"]


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free disk space"), (errno.EACCES, "correct the owner and the permissions")]
)
def test_a_directory_that_cannot_be_written_is_an_error(
    make_run: Callable[[Callable[..., Any]], int], capsys: pytest.CaptureFixture[str], number: int, advice: str
) -> None:
    def start(*_: object, **__: object) -> RunningStack:
        raise OSError(number, os.strerror(number), "/x/airflow.cfg")

    assert make_run(start) == 1
    printed = capsys.readouterr().out
    assert f"make run: [Errno {number}] {os.strerror(number)}: '/x/airflow.cfg'\n  What to do: {advice}" in printed


def test_ctrl_c_during_the_start_ends_make_run(make_run: Callable[[Callable[..., Any]], int]) -> None:
    def start(*_: object, **__: object) -> RunningStack:
        raise run.InterruptedRunError

    assert make_run(start) == 130
