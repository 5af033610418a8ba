"""``make run``: start the complete stack on this machine and train a first model.

Starts the Cloud Storage server and Airflow, registers the dataset versions, triggers the retraining DAG, follows the
run, and prints the result and the location of each file. Then it keeps running until Ctrl-C, which ends all processes
that it started. The data is kept for the next start.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import stack as stacks
from scripts.console import Console, Stopwatch
from scripts.examples import DEFAULT, EXAMPLES, Example
from scripts.follow import Follower, failures
from scripts.stack import Stack

from mlengine.core import layout
from mlengine.core.errors import ComponentFailedError, MlengineError
from mlengine.core.metrics import format_value
from mlengine.runtime.state_dir import disk_is_full
from mlengine.testing.airflow_api import DagRun

_INTERRUPTED = 130
_PREDICT_SECONDS = 300.0


class InterruptedRunError(Exception):
    """Ctrl-C, SIGTERM or SIGHUP was received; a closed terminal sends SIGHUP."""


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    console = Console()
    for number in stacks.STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
    try:
        return _run(args, console)
    except MlengineError as error:
        console.say(f"make run: {error}")
        return 1
    except OSError as error:
        hint = "free disk space" if disk_is_full(error) else f"correct the owner and the permissions in {stacks.DATA}"
        console.say(f"make run: {error}\n  What to do: {hint}; then make run again")
        return 1
    except InterruptedRunError:
        return _INTERRUPTED


def _run(args: argparse.Namespace, console: Console) -> int:
    clock, example = Stopwatch(), EXAMPLES[args.example]
    with stacks.Lock(stacks.DATA):
        console.say("Starting Cloud Storage, Airflow and the dataset versions …")
        stack: Stack | None = None
        code, stop = 0, _stop
        try:
            stack = stacks.start(stacks.DATA, load=example.load)
            stack.airflow.warn = lambda message: console.say(f"  ! {message}")
            _introduce(stack, console, clock)
            if not args.no_train:
                code = _train(stack, console, example, args.dag or example.dag, _conf(args.conf))
            if not args.once:
                console.say("\nRunning until Ctrl-C.")
                _stay(stack)
        except InterruptedRunError:
            code = _INTERRUPTED if args.once or stack is None else code
        except ComponentFailedError:
            stop = _stop_without_jobs
            raise
        finally:
            if stack is not None:
                stop(stack, console)
    return code


def _introduce(stack: Stack, console: Console, clock: Stopwatch) -> None:
    for message in stack.moved:
        console.say(f"  ! {message}")
    air = stack.airflow
    console.say(f"  Cloud Storage  {stack.server.url}   (objects are stored in {_short(stack.data / 'gcs')})")
    console.say(f"  Airflow        {air.url}   user {air.user}, password {air.password}")
    console.say(f"  up in {clock}")


def _train(stack: Stack, console: Console, example: Example, dag: str, conf: Mapping[str, Any]) -> int:
    clock = Stopwatch()
    run = _run_in_progress(stack, dag) if not conf else None
    if run is not None:
        console.say(f"\nContinuing the run of {dag} that an earlier make run left in progress.")
    else:
        stack.airflow.api.wait_for_dag(dag)
        run = stack.airflow.api.trigger(dag, conf)
    console.say(f"\n{dag}, run {run.run_id}\n  {stack.airflow.url}/dags/{dag}/runs/{run.run_id}")
    follower = Follower(stack, console)
    run = follower.follow(run)
    console.say(f"  {run.state} after {clock}")
    if run.state != "success":
        for line in failures(stack, run):
            console.say(f"  {line}")
    report = None if follower.job_dir is None else _read(stack, follower.job_dir.report)
    if report is not None:
        earlier = " of the validation in an earlier run" if follower.reused else ""
        console.say(f"\nVerdict{earlier}: {_decision(report)}")
        for check in report.get("verdict", {}).get("checks", ()):
            mark = "-" if check.get("skipped") else "✓" if check.get("passed") else "✗"
            console.say(f"  {mark} {check.get('message')}")
    _show_champion(stack, console, example)
    _where(stack, console, follower.job_dir, run)
    return 0 if run.state == "success" else 1


def _run_in_progress(stack: Stack, dag: str) -> DagRun | None:
    """A run that was in progress when the stack was killed, or when its Airflow failed."""
    return next((run for run in stack.airflow.api.live_runs() if run.dag_id == dag), None)


def _show_champion(stack: Stack, console: Console, example: Example) -> None:
    """Print the champion and ten of its predictions."""
    champion = _read(stack, layout.champion(stack.bucket, example.model))
    if champion is None:
        console.say("\nChampion: none yet")
        return
    console.say(f"\n{champion_line(champion)}")
    console.say(f"\nThe champion's predictions for ten {example.rows} of the held-out set:")
    for line in _predictions(stack, example.model):
        console.say(f"  {line}")


def champion_line(champion: Mapping[str, Any]) -> str:
    """The champion in one line. A champion that was validated without a held-out set has no metric."""
    value = champion.get("metric_value")
    measured = "not measured" if value is None else f"{champion.get('metric')} {format_value(value)}"
    version = (champion.get("dataset") or {}).get("version") or "an unnamed version"
    return f"Champion: no. {champion['serial']}, job {champion['job_id']}, {measured}, trained on {version}"


def _predictions(stack: Stack, model: str) -> list[str]:
    command = [str(Path(sys.executable).with_name("mlengine")), "models", "predict", model, "--bucket", stack.bucket]
    # A new session, so that Ctrl-C reaches only this process, which then stops the stack.
    try:
        done = subprocess.run(
            command,
            env=stack.airflow.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PREDICT_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return [f"none after {_PREDICT_SECONDS:.0f} s; to try again: mlengine models predict {model}"]
    return (done.stdout if done.returncode == 0 else done.stdout + done.stderr).splitlines()


def _where(stack: Stack, console: Console, job_dir: layout.JobDir | None, run: DagRun) -> None:
    console.say("\nFiles and pages:")
    if job_dir is not None:
        console.say(f"  the job        {job_dir.uri}/   (checkpoints in train/, model in model/, report.html)")
    console.say(f"  the bucket     {stack.bucket}/   on disk {_short(stack.data / 'gcs')}/{stacks.BUCKET}/")
    console.say(
        f"  the logs       {_short(stack.airflow.config.home / 'logs')}/   replicas: {_short(stack.data)}/local/"
    )
    console.say(f"  the run        {stack.airflow.url}/dags/{run.dag_id}/runs/{run.run_id}")
    console.say(f"  log in with    user {stack.airflow.user}, password {stack.airflow.password}")
    console.say(f"  in a terminal  . {_short(stack.data / 'env.sh')}   so that mlengine and airflow use this stack")


def _stay(stack: Stack) -> None:
    pause = threading.Event()
    while not pause.wait(5.0):
        stack.check()


def _stop(stack: Stack, console: Console) -> None:
    _ignore_signals()
    clock = Stopwatch()
    console.say("\nStopping …")
    for job_id in stack.stop(console):
        console.say(f"  job {job_id} had not ended: cancelled; checkpoints that it wrote are kept")
    console.say(f"  stopped in {clock}; the data is kept for the next make run (make clean deletes it)")


def _stop_without_jobs(stack: Stack, console: Console) -> None:
    """Stop the stack after Airflow has failed. Training jobs are separate processes and continue."""
    _ignore_signals()
    console.say("\nAirflow failed; stopping its other components …")
    jobs = stack.stop_without_jobs()
    for job_id in jobs:
        console.say(f"  job {job_id} continues to run, and so does the Cloud Storage server {stack.server.url}")
    if jobs:
        shell = _short(stack.data / "env.sh")
        console.say("  to continue its DAG run: make run again")
        console.say(f"  to cancel a job: . {shell}, then mlengine jobs cancel JOB")


def _ignore_signals() -> None:
    """Ignore a second Ctrl-C, which would leave some of the processes running."""
    for number in stacks.STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _read(stack: Stack, uri: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(stack.storage.read(uri))
    except (MlengineError, ValueError):
        return None
    return content


def _decision(report: Mapping[str, Any]) -> str:
    verdict = report.get("verdict", {})
    return str(verdict.get("verdict", "none")) if isinstance(verdict, Mapping) else str(verdict)


def _short(path: Path) -> str:
    return str(path.relative_to(stacks.ROOT)) if path.is_relative_to(stacks.ROOT) else str(path)


def _conf(pairs: list[str]) -> dict[str, Any]:
    """Parse pairs ``name=value``. A value that is valid JSON is decoded."""
    conf: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise MlengineError(f"not NAME=VALUE: {pair}", hint="write --conf max_steps=500")
        try:
            conf[name] = json.loads(value)
        except ValueError:
            conf[name] = value
    return conf


def _interrupt(*_: object) -> None:
    raise InterruptedRunError


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make run", description="Start the whole stack and retrain once.")
    parser.add_argument("--once", action="store_true", help="stop after the run; exit 0 if it succeeded")
    parser.add_argument("--no-train", action="store_true", help="start the stack only; trigger no run")
    parser.add_argument("--example", default=DEFAULT, choices=list(EXAMPLES), help=f"what to train (default {DEFAULT})")
    parser.add_argument("--dag", help="the DAG to trigger, instead of the example's")
    parser.add_argument("--conf", metavar="NAME=VALUE", action="append", default=[], help="a parameter of the run")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
