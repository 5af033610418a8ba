"""Runs checks that users write, as functions or Pandera schemas."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import CheckResult, Manifest
from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import arrow_schema
from mlengine.datasets.discovery import Found

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """The version that is about to be registered, as checks see it.

    :param manifest: the manifest, with schema, files and statistics.
    :param previous: the previous version; ``None`` for the first.
    """

    manifest: Manifest
    previous: Manifest | None
    _found: Found

    def batches(self, split: str, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """Read the rows of a split again, as record batches."""
        return self._found.format.batches(self._found.splits[split], arrow_schema(self.manifest.schema), rows)


# A check gets the candidate. It returns None or True if it passes, and False or a message if it fails.
OwnCheck = Callable[[Candidate], "bool | str | CheckResult | None"]


def run_own_checks(
    given: Sequence[str | OwnCheck], draft: Manifest, previous: Manifest | None, found: Found
) -> list[CheckResult]:
    """Run the checks and return one result for each. A check that raises an exception has failed.

    :param given: the checks: functions, or ``module:name`` of a function or a Pandera schema.
    :raises DatasetError: there is no such module or name.
    """
    return [_run(_resolved(one), Candidate(draft, previous, found)) for one in given]


def _resolved(check: str | OwnCheck) -> Any:
    if not isinstance(check, str):
        return check
    module, _, name = check.partition(":")
    if not module or not name:
        raise DatasetError(f"not a check: {check!r}", hint="write --check module:function")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DatasetError(
            f"--check {check}: {error}", hint="run the command where Python finds the module, or set PYTHONPATH"
        ) from error


def _run(check: Any, candidate: Candidate) -> CheckResult:
    name = str(getattr(check, "__name__", None) or getattr(check, "name", None) or type(check).__name__)
    try:
        found = _pandera(check, candidate) if _is_pandera(check) else check(candidate)
    except Exception as error:
        log.warning("check %s raised", name, exc_info=True)
        found = f"{type(error).__name__}: {error}"
    if isinstance(found, CheckResult):
        return found
    passed = found is None or found is True
    message = found if isinstance(found, str) else f"{name} returned {found!r}"
    return CheckResult(name, passed, "passed" if passed else "failed", "passes", message)


def _is_pandera(check: Any) -> bool:
    kind = check if isinstance(check, type) else type(check)
    return any(base.__module__.startswith("pandera.") for base in kind.__mro__)


def _pandera(schema: Any, candidate: Candidate) -> str | None:
    """Validate the rows with a Pandera schema, batch by batch.

    A Pandera check that needs all rows at once, such as ``unique``, sees only one batch at a time.
    """
    from pandera.errors import SchemaError, SchemaErrors

    for split in candidate.manifest.splits:
        for batch in candidate.batches(split, 1 << 16):
            try:
                schema.validate(batch.to_pandas(), lazy=True)
            except (SchemaError, SchemaErrors) as error:
                return f"split {split}: {str(error)[:1000]}"
    return None
