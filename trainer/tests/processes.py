"""Processes that run ``python -m trainer.task``, forked from a process that has already imported TensorFlow.

The import takes 3 s of CPU time, and the tests start more than fifty replicas. A forked process runs the same code with
its own environment, directory and output, and can be killed or stopped like any other. The start of a new interpreter
is covered by the end-to-end tests, in which the backends start replicas by their command.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

TRAINER = Path(__file__).resolve().parent.parent
_PRELOADED = ("evaluator", "loop", "distributed.ps", "distributed.sync")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([f"trainer.{name}" for name in _PRELOADED])


def start(arguments: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> BaseProcess:
    """Start a replica.

    :param env: its environment. It is set after TensorFlow's import, so variables that the import reads have no effect.
    :param log: the file to which its output is written.
    """
    _start_server()
    process = _context.Process(target=_run, args=(list(arguments), dict(env), str(folder), str(log)), daemon=True)
    process.start()
    return process


def _start_server() -> None:
    """Start the fork server with the trainer on its path, so that it can preload the trainer's modules."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(TRAINER)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(arguments: list[str], env: dict[str, str], folder: str, log: str) -> None:
    """In the new process, do what the interpreter does for ``python -m trainer.task``."""
    assert "tensorflow" in sys.modules, "TensorFlow must be imported before"
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    with open(log, "wb") as sink, open(os.devnull, "rb") as nothing:  # noqa: PTH123  must come before anything that can fail
        for source, target in ((nothing, 0), (sink, 1), (sink, 2)):
            os.dup2(source.fileno(), target)
    sys.argv = ["trainer.task", *arguments]
    runpy.run_module("trainer.task", run_name="__main__", alter_sys=True)
