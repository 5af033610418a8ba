"""The checks that a dataset version must pass before it is registered.

A version is checked by itself and against the previous version.

The checks use statistics only. This module reads no files and no bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mlengine.core.dataset import CheckException, CheckResult, ColumnStatistics, Manifest, Split
from mlengine.core.errors import DatasetError
from mlengine.core.plural import number_of
from mlengine.datasets.drift import new_values_share, psi
from mlengine.datasets.scan import Scan

# Checks whose failure cannot be allowed: the data are broken, or models of two versions could not be compared.
NEVER_EXCEPTED = ("target", "key", "weight", "held-out-set")
_CLASSIFICATION = ("binary", "multiclass")


@dataclass(frozen=True)
class Limits:
    """The thresholds of checks, set with ``--limit NAME=VALUE``; names have hyphens there.

    :param duplicates: the share of held-out rows that may also be training rows.
    :param class_balance: the largest allowed change of a class's share, as a fraction of 1.
    :param drift: the largest allowed PSI of a column.
    :param nulls: the largest allowed growth of a column's share of nulls, as a fraction of 1.
    :param categories: the share of rows that may have a value that the previous version does not have.
    :param row_count: the smallest allowed number of training rows, as a fraction of the previous version's.
    :param time_order: the share of training rows that may be newer than the first held-out row.
    """

    duplicates: float = 0.001
    class_balance: float = 0.05
    drift: float = 0.25
    nulls: float = 0.05
    categories: float = 0.01
    row_count: float = 0.5
    time_order: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Limits:
        """Limits with the given values, and defaults for the others.

        :raises DatasetError: there is no such check, or a value is not a number of at least 0.
        """
        known = [field.name.replace("_", "-") for field in fields(cls)]
        wrong = [name for name in values if name not in known]
        if wrong:
            raise DatasetError(f"no check has the limit {wrong[0]!r}", hint=f"use one of {', '.join(known)}")
        for name, value in values.items():
            if not 0 <= value < math.inf:
                raise DatasetError(f"the limit {name} is {value}", hint="use a number of 0 or more")
        return cls(**{name.replace("-", "_"): value for name, value in values.items()})


def run_checks(draft: Manifest, scan: Scan, previous: Manifest | None, limits: Limits) -> list[CheckResult]:
    """Run all checks and return their results, passed or not.

    :param draft: the version as it would be registered.
    :param previous: the previous version; ``None`` for the first version of a dataset.
    """
    checks = [*_roles(draft, scan), *_heldout(draft, scan, limits)]
    if previous is not None:
        checks += [_schema(draft, previous), *_versions(draft, previous, limits)]
    elif "heldout" in draft.splits:
        checks += _class_balance(draft, draft.splits["heldout"].statistics, "the held-out rows", limits)
    return checks


def refuse_failed(
    checks: Sequence[CheckResult], what: str, *, allow: Sequence[str] = (), reason: str = ""
) -> tuple[CheckException, ...]:
    """Raise an error for failed checks, and return those whose failure is allowed, for the manifest.

    :param allow: names of checks that may fail.
    :param reason: why the failure is acceptable.
    :raises DatasetError: other checks failed, whose messages the error has; or the failure of a check in ``allow``
        cannot be allowed.
    """
    known = {check.name for check in checks} | {field.name.replace("_", "-") for field in fields(Limits)}
    wrong = [name for name in allow if name in NEVER_EXCEPTED or name not in known]
    if wrong:
        possible = ", ".join(sorted(known - set(NEVER_EXCEPTED)))
        raise DatasetError(f"no exception can be made from: {', '.join(wrong)}", hint=f"one can be from: {possible}")
    if allow and not reason.strip():
        raise DatasetError(
            "an exception needs a reason",
            hint="say with --reason why the failure is acceptable; the manifest records it",
        )
    failed = [check for check in checks if not check.passed and check.name not in allow]
    if failed:
        reasons = "\n".join(f"  - {check.name}: {check.message}" for check in failed)
        hint = "correct the data; nothing was uploaded"
        if not any(check.name in NEVER_EXCEPTED for check in failed):
            names = dict.fromkeys(check.name for check in failed)
            hint += f'. If it is meant to be so: {" ".join(f"--allow {name}" for name in names)} --reason "…"'
        raise DatasetError(
            f"{what} is not registered; {len(failed)} of {number_of(len(checks), 'check')} failed:\n{reasons}",
            hint=hint,
        )
    return tuple(CheckException(check.name, check.message, reason) for check in checks if not check.passed)


def _roles(draft: Manifest, scan: Scan) -> Iterator[CheckResult]:
    """Check the target, key and weight of each split."""
    for name, split in scan.splits.items():
        for role in ("target", "key", "weight"):
            column = getattr(draft.schema, role)
            statistics = split.statistics.get(column)
            if column is None or statistics is None or statistics.nulls is None:
                continue
            rows = split.read or split.rows or 0
            infinite = {"target": split.infinite, "weight": statistics.infinite or 0}.get(role, 0)
            if role == "weight":
                yield from _weights(column, statistics, name)
            everything = " (all of them)" if statistics.nulls == rows else ""
            message = (
                f"{role} {column!r} is null in {statistics.nulls:,} of {number_of(rows, 'row')}{everything} of {name}"
            )
            message += f", infinite in {infinite:,}" if infinite else ""
            passed = statistics.nulls == 0 and not infinite
            yield CheckResult(role, passed, f"{statistics.nulls + infinite}", "0", message)
    for column in draft.schema.columns:
        statistics = scan.splits["train"].statistics.get(column.name)
        rows = scan.splits["train"].read or scan.splits["train"].rows or 0
        if statistics is not None and statistics.nulls == rows and column in draft.schema.features:
            text = f"column {column.name!r} is null in all {rows:,} training rows"
            yield CheckResult("nulls", False, "100 %", "less than 100 %", text)


def _weights(column: str, statistics: ColumnStatistics, split: str) -> Iterator[CheckResult]:
    low, high = statistics.min, statistics.max
    if isinstance(low, int | float) and isinstance(high, int | float):
        text = f"weight {column!r} of {split} is from {low:g} to {high:g}; weights are 0 or more, and not all are 0"
        yield CheckResult("weight", low >= 0 < high, f"{low:g}", "0", text)


def _heldout(draft: Manifest, scan: Scan, limits: Limits) -> Iterator[CheckResult]:
    if "heldout" not in scan.splits:
        return
    overlap = scan.overlap
    if overlap is not None:
        share, limit = overlap.share, limits.duplicates
        where = ", ".join(f"{row:,}" for row in overlap.examples)
        text = (
            f"{100 * share:.2f} % of the {overlap.rows:,} held-out rows are training rows too "
            f"({100 * limit:.2f} % allowed{f'; training rows {where}, …' if where else ''}): a model would be "
            "validated on rows that it was trained on"
        )
        if overlap.distinct_share < 0.9:
            text += (
                f". Only {100 * overlap.distinct_share:.0f} % of the held-out rows are different, so that equal rows "
                "may be chance: set --limit duplicates=SHARE"
            )
        yield CheckResult("duplicates", share <= limit, f"{share:.4f}", f"{limit:.4f}", text)
    if draft.schema.time is not None and scan.first_heldout is not None:
        share = scan.newer / max(1, scan.splits["train"].read)
        text = (
            f"{scan.newer:,} training rows ({100 * share:.2f} %) are newer than the first held-out one "
            f"({_shown_time(scan.first_heldout)})"
        )
        if draft.heldout_share is not None and share > limits.time_order:
            text += (
                ". --heldout SHARE holds rows out by their hash, not by their time: give the newest rows with "
                "--heldout PATH"
            )
        yield CheckResult("time-order", share <= limits.time_order, f"{share:.4f}", f"{limits.time_order:.4f}", text)
    if draft.task in _CLASSIFICATION:
        yield from _known_classes(draft, scan)


def _shown_time(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _known_classes(draft: Manifest, scan: Scan) -> Iterator[CheckResult]:
    known = set(draft.schema.classes or ())
    for name, split in scan.splits.items():
        statistics = split.statistics.get(draft.schema.target or "")
        if statistics is None or not statistics.top:
            continue
        new = [(value, rows) for value, rows in statistics.top if value not in known]
        shown = ", ".join(f"{value!r} in {number_of(rows, 'row')}" for value, rows in new[:5])
        text = f"target {draft.schema.target!r} of {name} has values that are no class: {shown}"
        yield CheckResult(
            "classes",
            not new,
            f"{len(new)} new",
            f"{len(known)} classes",
            f"{text}. If they are classes, list all: --classes A,B,…" if new else f"all values of {name} are classes",
        )


def _schema(draft: Manifest, previous: Manifest) -> CheckResult:
    there, here = ({column.name: str(column) for column in one.schema.columns} for one in (previous, draft))
    wrong = [f"{name!r} ({there[name]}) is missing" for name in there if name not in here]
    wrong += [f"{name!r} ({here[name]}) is new" for name in here if name not in there]
    wrong += [
        f"{name!r} is {here[name]}, was {there[name]}" for name in here if name in there and here[name] != there[name]
    ]
    for role in ("target", "key", "time", "weight", "classes"):
        now, then = getattr(draft.schema, role), getattr(previous.schema, role)
        if now != then and not (role == "classes" and now is not None and then is not None and len(now) > 20):
            wrong.append(f"{role} is {_short(now)}, was {_short(then)}")
    if draft.task != previous.task:
        wrong.append(f"task is {draft.task}, was {previous.task}")
    text = f"compared with {previous.name}/{previous.version}: {'; '.join(wrong) or 'the same'}"
    return CheckResult("schema", not wrong, f"{len(wrong)} changes", "0 changes", text)


def _short(value: object) -> str:
    return str(value) if len(str(value)) < 60 else f"{str(value)[:60]}…"


def _versions(draft: Manifest, previous: Manifest, limits: Limits) -> Iterator[CheckResult]:
    """Check against the previous version: held-out rows, number of rows, nulls, distributions."""
    name = f"{previous.name}/{previous.version}"
    if draft.heldout_policy == "fixed" and "heldout" in previous.splits and "heldout" in draft.splits:
        mine, theirs = draft.heldout, previous.heldout
        text = (
            f"the held-out rows must be those of {name}, to the byte: models are compared on them; here are "
            f"{mine.rows} rows ({mine.identity[:12]}), there {theirs.rows} ({theirs.identity[:12]}). If each version "
            "has its own: --heldout-policy rolling"
        )
        yield CheckResult("held-out-set", mine.same_content(theirs), mine.identity[:12], theirs.identity[:12], text)
    now, then = draft.train, previous.train
    if now.rows is not None and then.rows:
        share = now.rows / then.rows
        text = f"{now.rows:,} training rows, {then.rows:,} in {name}: {100 * share:.0f} %"
        text += f", {100 * limits.row_count:.0f} % are needed"
        yield CheckResult("row-count", share >= limits.row_count, f"{share:.3f}", f"{limits.row_count}", text)
    yield from _class_balance(draft, then.statistics, name, limits)
    for column in draft.schema.features:
        if column.name in now.statistics and column.name in then.statistics:
            yield from _column(column.name, then, now, name, limits)
    target = draft.schema.target
    if draft.task == "regression" and target is not None and target in now.statistics and target in then.statistics:
        pair = then.statistics[target], now.statistics[target]
        yield from _drift(target, psi(*pair, then.counted, now.counted), name, limits)


def _counted(statistics: ColumnStatistics, split: Split) -> int:
    return split.counted or sum(count for _, count in statistics.top) + (statistics.nulls or 0)


def _column(column: str, then: Split, now: Split, name: str, limits: Limits) -> Iterator[CheckResult]:
    old, new = then.statistics[column], now.statistics[column]
    before, after = _counted(old, then), _counted(new, now)
    if before and after and old.nulls is not None and new.nulls is not None:
        shares = old.nulls / before, new.nulls / after
        grown = shares[1] - shares[0]
        text = (
            f"column {column!r}: {100 * shares[1]:.2f} % nulls, {100 * shares[0]:.2f} % in {name}; "
            f"{100 * limits.nulls:.2f} points more are allowed"
        )
        yield CheckResult("nulls", grown <= limits.nulls, f"{grown:.4f}", f"{limits.nulls:.4f}", text)
    unknown = new_values_share(old, new, before, after)
    if unknown is not None and isinstance(old.top[0][0], str):
        values = ", ".join(repr(value) for value, _ in new.top if value not in old.counts)
        text = f"column {column!r}: {100 * unknown:.2f} % of the rows have values that {name} does not have: {values}"
        text += f"; {100 * limits.categories:.2f} % are allowed"
        yield CheckResult("categories", unknown <= limits.categories, f"{unknown:.4f}", f"{limits.categories}", text)
    yield from _drift(column, psi(old, new, before, after), name, limits)


def _drift(column: str | None, index: float | None, name: str, limits: Limits) -> Iterator[CheckResult]:
    if index is not None:
        text = f"column {column!r}: PSI {index:.3f} against {name}, {limits.drift} allowed"
        yield CheckResult("drift", index <= limits.drift, f"{index:.4f}", f"{limits.drift}", text)


def _class_balance(
    draft: Manifest, reference: Mapping[str, ColumnStatistics], name: str, limits: Limits
) -> Iterator[CheckResult]:
    """The largest change of a class's share of the training rows, as a fraction of 1."""
    target = draft.schema.target
    if target is None or draft.task not in _CLASSIFICATION:
        return
    if target not in reference or target not in draft.train.statistics:
        return
    before, after = reference[target].counts, draft.train.statistics[target].counts
    totals = max(1, sum(before.values())), max(1, sum(after.values()))
    shares = {
        value: (before.get(value, 0) / totals[0], after.get(value, 0) / totals[1]) for value in {**before, **after}
    }
    if not shares:
        return
    value, (then, now) = max(shares.items(), key=lambda item: abs(item[1][0] - item[1][1]))
    change, limit = abs(now - then), limits.class_balance
    yield CheckResult(
        "class-balance",
        change <= limit,
        f"{change:.4f}",
        f"{limit:.4f}",
        f"{target} {value!r} is {100 * now:.2f} % of the training rows, {100 * then:.2f} % in {name}: "
        f"{100 * change:.2f} points of change, {100 * limit:.2f} allowed",
    )
