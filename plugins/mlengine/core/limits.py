"""Limits of a job's fields. They are the same for job files, flags, operator arguments and API requests.

Each function returns a :class:`Problem`, or ``None`` if the value is valid. The caller adds the location of the value:
``raise field.error(problem.message, problem.hint)`` in a job file, ``job.labels: {problem.message}`` in an API.
:class:`~mlengine.core.spec.TrainingSpec` checks its fields with these functions, whatever their source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlengine.core import vertex_machines

MAX_REPLICAS = 1000  # of one role
MAX_ACCELERATORS = 256  # of one machine
MAX_PACKAGES = 100
MAX_LABELS = 64
MAX_VARIABLES = 100
MAX_ATTEMPTS = 100
MAX_PRIORITY = 1000
_DISK = vertex_machines.table()["disk"]
MIN_DISK_GB: int = _DISK["least_gb"]
MAX_DISK_GB: int = _DISK["most_gb"]
MAX_SECONDS = 315_576_000_000  # the longest duration that Google's APIs can express

_JOB_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a value, and what to use instead."""

    message: str
    hint: str


def replica_count(count: int) -> Problem | None:
    """Check the number of replicas of one role."""
    return _in_range(count, 0, MAX_REPLICAS)


def accelerator_count(count: int) -> Problem | None:
    """Check the number of accelerators of one machine."""
    return _in_range(count, 0, MAX_ACCELERATORS)


def priority(number: int) -> Problem | None:
    """Check the priority of a job, as ML Engine defined it."""
    return _in_range(number, 0, MAX_PRIORITY)


def attempts(count: int) -> Problem | None:
    """Check the maximum number of attempts of a job."""
    return _in_range(count, 1, MAX_ATTEMPTS)


def seconds(duration: float) -> Problem | None:
    """Check the time for which a job may run or wait."""
    return _in_range(duration, 1, MAX_SECONDS)


def boot_disk_gb(size: int) -> Problem | None:
    """Check the size of the boot disk of one machine on Vertex AI."""
    return _in_range(size, MIN_DISK_GB, MAX_DISK_GB)


def job_id(text: str) -> Problem | None:
    """Check a job id that the user has chosen."""
    if _JOB_ID.fullmatch(text):
        return None
    return Problem(
        f"is not a job id: {text!r}", "use letters, digits and underscores, 128 at most, beginning with a letter"
    )


def labels(given: Mapping[str, str]) -> Problem | None:
    """Check all labels of a job."""
    if len(given) > MAX_LABELS:
        return Problem(f"has {len(given)} labels", f"a job has at most {MAX_LABELS}")
    return next((problem for name, value in given.items() if (problem := label(name, value))), None)


def label(name: str, value: str) -> Problem | None:
    """Check one label against the rules of Google's services."""
    if _label_text(name) and name[:1].isalpha() and (not value or _label_text(value)):
        return None
    return Problem(
        f"is not a label: {name!r}: {value!r}",
        "names and values have at most 63 of a-z 0-9 _ -; a name begins with a letter",
    )


def variables(given: Mapping[str, str]) -> Problem | None:
    """Check all environment variables of a replica."""
    if len(given) > MAX_VARIABLES:
        return Problem(f"has {len(given)} environment variables", f"a job has at most {MAX_VARIABLES}")
    return next((problem for name, value in given.items() if (problem := variable(name, value))), None)


def variable(name: str, value: str = "") -> Problem | None:
    """Check one environment variable."""
    if not _VARIABLE.fullmatch(name):
        return Problem(
            f"is not the name of an environment variable: {name!r}",
            "use letters, digits and underscores, not beginning with a digit",
        )
    if "\0" in value:
        return Problem(f"variable {name} contains a NUL character", "no process accepts it; remove it")
    return None


def arguments(given: Iterable[str]) -> Problem | None:
    """Check the arguments of the trainer."""
    for number, argument in enumerate(given):
        if "\0" in argument:
            return Problem(f"argument {number} contains a NUL character", "no process accepts it; remove it")
    return None


def option(given: object) -> Problem | None:
    """Check the name of an option of the trainer; "" for none."""
    if isinstance(given, str) and (not given or _OPTION.fullmatch(given)):
        return None
    return Problem(
        f"is not the name of an option: {given!r}", 'write it with its dashes, such as --job-dir; "" for none'
    )


def package_count(count: int) -> Problem | None:
    """Check the number of packages that a job installs."""
    if count <= MAX_PACKAGES:
        return None
    return Problem(f"names {count} packages", f"a job has at most {MAX_PACKAGES}; merge some into one")


def _in_range(value: float, least: int, most: int) -> Problem | None:
    if least <= value <= most:
        return None
    return Problem(f"is {value}", f"use {least} to {most}")


def _label_text(text: str) -> bool:
    return 0 < len(text) <= 63 and text == text.lower() and all(char.isalnum() or char in "_-" for char in text)
