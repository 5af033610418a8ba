"""The command-line arguments. Unknown ones are logged and ignored, because training services append their own."""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from trainer.errors import UsageError
from trainer.files.storage import check_uri

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """The configuration of a training.

    :param log_dir: the train dir: checkpoints, progress.
    :param summary_dir: TensorBoard's event files; the train dir, unless the service names another one.
    :param model_dir: the directory of the exported model.
    """

    dataset: str
    log_dir: str
    model_dir: str
    summary_dir: str = ""
    batch_size: int = 100
    max_steps: int = 1000
    checkpoint: int = 200
    eval_examples: int = 2000
    learning_rate: float = 2e-4
    seed: int = 0
    strategy: str = "async"
    precision: str = "auto"
    patience: float = 300.0
    step_timeout: float = 60.0
    threads: int = 0
    allow_cpu: bool = False

    def with_batches_of(self, size: int) -> Self:
        """A copy with another batch size. Logs the change."""
        if size != self.batch_size:
            log.info("a step has %d examples, not %d", size, self.batch_size)
        return replace(self, batch_size=size)


def parse(argv: Sequence[str]) -> Config:
    """Parse the arguments.

    :raises UsageError: an argument is missing or invalid.
    """
    parser = _parser()
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        log.warning("ignoring unknown arguments: %s", " ".join(unknown))
    if not known.dataset:
        raise UsageError("no --dataset: give the directory or gs:// prefix of a dataset version")
    for name in ("eval_examples", "seed", "threads"):
        if getattr(known, name) < 0:
            raise UsageError(f"--{name} must be 0 or more, not {getattr(known, name)}")
    for name in ("learning_rate", "patience", "step_timeout"):
        if not math.isfinite(getattr(known, name)):
            raise UsageError(f"--{name} must be a finite number, not {getattr(known, name)}")
    for name in ("batch_size", "max_steps", "checkpoint", "patience", "step_timeout"):
        if getattr(known, name) <= 0:
            raise UsageError(f"--{name} must be more than 0, not {getattr(known, name)}")
    job_dir = _checked(known.job_dir)
    base = (job_dir or "job").rstrip("/")
    # Vertex AI names both directories in the environment; ML Engine passed --job-dir.
    log_dir = _checked(known.log_dir or (None if job_dir else os.environ.get("AIP_CHECKPOINT_DIR"))) or f"{base}/train"
    summary_dir = _checked(known.log_dir or os.environ.get("AIP_TENSORBOARD_LOG_DIR")) or log_dir
    model_dir = _checked(known.model_dir or (None if job_dir else os.environ.get("AIP_MODEL_DIR"))) or f"{base}/model"
    return Config(
        dataset=_checked(known.dataset),
        log_dir=log_dir.rstrip("/"),
        summary_dir=summary_dir.rstrip("/"),
        model_dir=model_dir.rstrip("/"),
        batch_size=known.batch_size,
        max_steps=known.max_steps,
        checkpoint=known.checkpoint,
        eval_examples=known.eval_examples,
        learning_rate=known.learning_rate,
        seed=known.seed,
        strategy=known.strategy,
        precision=known.precision,
        patience=known.patience,
        step_timeout=known.step_timeout,
        threads=known.threads,
        allow_cpu=known.allow_cpu,
    )


def _checked(uri: str | None) -> str:
    """The URI, or an empty string if none is given.

    :raises UsageError: the URI cannot be opened.
    """
    check_uri(uri or "")
    return uri or ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trainer.task", description="Train MNIST, alone or as the replica that TF_CONFIG names.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", help="a dataset version: directory or gs:// prefix with a manifest.json")
    add(
        "--job-dir",
        "--job_dir",
        dest="job_dir",
        help="the parent directory of --log_dir and --model_dir; training services add it",
    )
    add("--log_dir", help="the directory of checkpoints, summaries and progress (default: JOB_DIR/train)")
    add("--model_dir", help="the directory of the exported model (default: JOB_DIR/model)")
    add("--batch_size", type=int, default=Config.batch_size, help="examples per step (default: %(default)s)")
    add(
        "--max_steps",
        type=int,
        default=Config.max_steps,
        help="total number of steps of all trainers (default: %(default)s)",
    )
    add(
        "--checkpoint",
        type=int,
        default=Config.checkpoint,
        help="steps between checkpoints, which are evaluated (default: %(default)s)",
    )
    add(
        "--eval_examples",
        type=int,
        default=Config.eval_examples,
        help="held-out examples of each evaluation but the last, which uses all; always the same ones; 0: all "
        "(default: %(default)s)",
    )
    add(
        "--learning_rate",
        type=float,
        default=Config.learning_rate,
        help="learning rate of Adam at the first step; it falls linearly to 0 at the last (default: %(default)s)",
    )
    add("--seed", type=int, default=Config.seed, help="seed of initial weights and shuffles (default: %(default)s)")
    add(
        "--strategy",
        choices=["async", "sync"],
        default=Config.strategy,
        help="async: parameter servers; sync: all-reduce between chief and workers (default: %(default)s)",
    )
    add(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default=Config.precision,
        help="the type in which training computes convolutions and the dense layer; auto: bfloat16 on CPUs with AMX, "
        "else float32 (default: %(default)s)",
    )
    add(
        "--patience",
        type=float,
        default=Config.patience,
        help="seconds to wait for another replica before giving up (default: %(default)s)",
    )
    add(
        "--step_timeout",
        type=float,
        default=Config.step_timeout,
        help="seconds after which a step counts as hung (default: %(default)s)",
    )
    add("--allow_cpu", action="store_true", help="train on the CPU if the given accelerator is not visible")
    add(
        "--threads",
        type=int,
        default=Config.threads,
        help="number of cores to use (default: a fair share of the machine's)",
    )
    return parser
