"""Tests the champion's pointer in a real bucket: races, crashes, rollback, force, and repeated tasks.

TensorFlow is not needed: a model is a single file, and reports and predictions are written by the tests.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlengine.champions import history as champions
from mlengine.champions.history import Action, Champion, current, history
from mlengine.core import layout
from mlengine.core.errors import PublishError
from mlengine.core.layout import JobDir
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision, Verdict
from mlengine.promotion.outcome import Force, Outcome, PublishDecision
from mlengine.promotion.publish import publish, rollback
from mlengine.storage.client import Storage
from mlengine.validation.export import resolve
from mlengine.validation.predictions import Predictions
from mlengine.validation.report import Report, load_report, store
from tests.support.buckets import delete_below

pytestmark = pytest.mark.integration
LABELS = np.arange(2000) % 10


def predictions(right: float) -> Predictions:
    """Predictions of which the first ``right`` (a share) are correct."""
    good = np.arange(len(LABELS)) < round(right * len(LABELS))
    predicted = np.where(good, LABELS, (LABELS + 1) % 10)
    return Predictions("multiclass", "digits", tuple(range(10)), target=LABELS, predicted=predicted)


class Bench:
    """Creates validated jobs in one bucket, and publishes them."""

    def __init__(self, storage: Storage, bucket: str) -> None:
        self.storage, self.bucket = storage, bucket

    def job(self, name: str, *, accuracy: float = 0.98, version: str = "2026-11-01", **changes: Any) -> Report:
        """Create a job that was validated against the current champion."""
        job_dir = JobDir.of(self.bucket, "mnist", name)
        self.storage.write(job_dir.model + "saved_model.pb", name.encode())
        export = resolve(self.storage, job_dir.model)
        champion = current(self.storage, self.bucket, "mnist")
        report = Report(
            model="mnist",
            job_id=name,
            job_dir=job_dir.uri,
            model_uri=export.uri,
            verdict=Verdict(Decision.ACCEPTED, ("All checks passed.",)),
            thresholds=Thresholds.from_json({"accuracy": {"max_regression": 0.02}}),
            checks="all",
            created="2026-11-23T12:00:00+00:00",
            fingerprint=export.fingerprint,
            size=export.size,
            dataset={"name": "mnist", "version": version, "uri": f"{self.bucket}/datasets/mnist/{version}"},
            champion={} if champion is None else champion.brief(),
            task="multiclass",
            metrics={"accuracy": accuracy},
            main_metric="accuracy",
            lineage={"package_uris": [f"{self.bucket}/packages/trainer.tar.gz"]},
        )
        report = replace(report, **changes)
        store(self.storage, report, predictions(accuracy), None)
        return report

    def publish(self, report: Report, **more: Any) -> Outcome:
        return publish(self.storage, self.bucket, report, by="dag run", **more)

    def serials(self) -> list[tuple[int, str]]:
        """Serial and job id of each entry in the history, oldest first."""
        return [(was.serial, was.job_id) for was in reversed(history(self.storage, self.bucket, "mnist"))]

    @property
    def pointer(self) -> str:
        return layout.champion(self.bucket, "mnist")


@pytest.fixture
def bench(storage: Storage, bucket: str) -> Bench:
    return Bench(storage, bucket)


def test_history_records_publisher_time_reason_verdict_and_lineage(bench: Bench) -> None:
    bench.publish(bench.job("a"))
    outcome = bench.publish(bench.job("b", accuracy=0.985))
    assert outcome.decision is PublishDecision.PUBLISHED
    assert outcome.published
    assert bench.serials() == [(1, "a"), (2, "b")]
    newest = history(bench.storage, bench.bucket, "mnist")[0]
    assert newest == current(bench.storage, bench.bucket, "mnist") == outcome.champion
    assert (newest.by, newest.why, newest.verdict) == ("dag run", "All checks passed.", "accepted")
    assert newest.at.startswith("20")
    assert newest.lineage["package_uris"] == [f"{bench.bucket}/packages/trainer.tar.gz"]
    assert (newest.version, newest.metric_value, newest.previous) == ("2026-11-01", 0.985, 1)
    assert Champion.from_bytes(newest.to_bytes()) == newest
    assert champions.models(bench.storage, bench.bucket) == ["mnist"]


def test_a_model_without_a_champion_has_an_empty_history(bench: Bench) -> None:
    assert current(bench.storage, bench.bucket, "mnist") is None
    assert history(bench.storage, bench.bucket, "mnist") == []
    assert champions.models(bench.storage, bench.bucket) == []


def test_publishing_the_same_job_twice_changes_nothing(bench: Bench) -> None:
    report = bench.job("a")
    first = bench.publish(report)
    again = bench.publish(report)
    assert again.decision is PublishDecision.ALREADY_CHAMPION
    assert again.champion == first.champion
    bench.publish(bench.job("b"))
    # The first task is cleared, and runs again after the second model was published.
    late = bench.publish(report)
    assert late.decision is PublishDecision.SUPERSEDED
    assert not late.published
    assert bench.serials() == [(1, "a"), (2, "b")]


def test_publishing_a_new_job_does_not_read_the_history(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        bench.publish(bench.job(name))
    read: list[str] = []
    original = bench.storage.read

    def count(uri: str) -> bytes:
        read.append(uri)
        return original(uri)

    monkeypatch.setattr(bench.storage, "read", count)
    claimed = {
        "time": time.time() + 7200,
        "event": "claimed",
    }  # later than the last publication by more than the allowed clock difference
    assert bench.publish(bench.job("new", lineage={"events": [claimed]})).decision is PublishDecision.PUBLISHED
    assert [uri for uri in read if "/champions/" in uri] == []
    # A job that was claimed before the latest publications is compared with those entries.
    old = bench.job("b", lineage={"events": [{"time": time.time() - 60, "event": "claimed"}]})
    assert bench.publish(old).decision is PublishDecision.SUPERSEDED
    assert len([uri for uri in read if "/champions/" in uri]) == 3


def test_a_repeated_task_does_not_undo_a_rollback(bench: Bench) -> None:
    bench.publish(bench.job("good"))
    bad = bench.job("bad")
    bench.publish(bad)
    rollback(bench.storage, bench.bucket, "mnist", by="anna", why="wrong digits in production")
    assert bench.publish(bad).decision is PublishDecision.SUPERSEDED
    assert bench.serials()[-1] == (3, "good")


def test_a_rejected_model_is_not_published_and_the_reason_is_reported(bench: Bench) -> None:
    check = Check("accuracy", 0.4, "≥ 0.97", passed=False, message="Accuracy is 0.4; the minimum is 0.97.")
    rejected = bench.job("bad", verdict=Verdict(Decision.REJECTED, (check.message,), (check,)))
    outcome = bench.publish(rejected)
    assert outcome.decision is PublishDecision.REJECTED
    assert outcome.champion is None
    assert "Accuracy is 0.4; the minimum is 0.97." in outcome.reason
    assert not bench.storage.exists(bench.pointer)


def test_force_requires_and_records_a_name_and_a_reason(bench: Bench) -> None:
    rejected = bench.job("bad", verdict=Verdict(Decision.REJECTED, ("No.",)))
    for by, why in (("", "because"), ("anna", "  ")):
        with pytest.raises(PublishError, match="name and a reason"):
            Force(by, why)
    outcome = bench.publish(rejected, force=Force("anna", "the old one is worse"))
    assert outcome.champion is not None
    kept = outcome.champion
    assert (kept.action, kept.by, kept.why, kept.verdict) == (
        Action.FORCED,
        "anna",
        "the old one is worse",
        "rejected",
    )


def test_unneeded_force_is_not_recorded(bench: Bench) -> None:
    outcome = bench.publish(bench.job("a"), force=Force("anna", "just in case"))
    assert outcome.champion is not None
    assert outcome.champion.action is Action.PUBLISHED


@pytest.mark.parametrize(("older", "newer"), [("2026-10-01", "2026-11-01"), ("v9", "v12")])
def test_a_model_of_an_older_dataset_version_does_not_replace_the_champion(
    bench: Bench, older: str, newer: str
) -> None:
    bench.publish(bench.job("new", version=newer))
    backfilled = bench.job("old", version=older)
    outcome = bench.publish(backfilled)
    assert outcome.decision is PublishDecision.OLDER_DATASET
    assert older in outcome.reason
    assert newer in outcome.reason
    assert bench.serials() == [(1, "new")]
    assert bench.publish(backfilled, force=Force("anna", "the new labels are wrong")).published
    assert bench.serials() == [(1, "new"), (2, "old")]


def of_run(key: str = "", at: str = "", claimed: float | None = None) -> dict[str, Any]:
    """The fields of a report for a job of that run, or for a job without a run that was submitted at ``claimed``."""
    run = {"partition_key": key, "as_of": f"{at}T00:00:00+00:00" if at else None}
    events = [] if claimed is None else [{"time": claimed, "event": "claimed"}]
    return {"dataset": {}, "lineage": {"inputs": {"run": run} if key or at else {}, "events": events}}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (of_run("2026-06-01", "2026-06-01"), of_run("2026-11-01", "2026-11-01")),
        (of_run("v9", "2026-12-01"), of_run("v12", "2026-11-01")),
        (of_run("", "2026-06-01"), of_run("", "2026-11-01")),
        (of_run("2026-06-01", "2026-06-01"), of_run(claimed=time.time())),
        (of_run(claimed=1_780_000_000.0), of_run("", "2026-11-01")),
    ],
)
def test_without_a_dataset_a_model_of_an_older_run_does_not_replace_the_champion(
    bench: Bench, older: dict[str, Any], newer: dict[str, Any]
) -> None:
    bench.publish(bench.job("new", **newer))
    backfilled = bench.job("old", **older)
    outcome = bench.publish(backfilled)
    assert outcome.decision is PublishDecision.OLDER_RUN
    assert "old belongs to the run of " in outcome.reason
    assert bench.serials() == [(1, "new")]
    assert bench.publish(backfilled, force=Force("anna", "the new data are wrong")).published
    assert bench.publish(bench.job("newer", **newer)).published, "the forced champion is of an older run"
    assert bench.serials() == [(1, "new"), (2, "old"), (3, "newer")]


def test_dataset_versions_take_precedence_over_run_dates(bench: Bench) -> None:
    june, december = of_run("", "2026-06-01")["lineage"], of_run("", "2026-12-01")["lineage"]
    bench.publish(bench.job("a", version="2026-10-01", lineage=december))
    assert bench.publish(bench.job("b", version="2026-11-01", lineage=june)).published


def test_versions_of_different_datasets_are_ordered_by_run_date(bench: Bench) -> None:
    """A model of another dataset is published. A backfill of the first dataset then does not replace it."""
    bench.publish(bench.job("a", lineage=of_run("2026-11-01", "2026-11-01")["lineage"]))
    other = {"name": "letters", "version": "2020-01-01"}
    changed = bench.job("b", dataset=other, lineage=of_run("2026-12-01", "2026-12-01")["lineage"])
    assert bench.publish(changed).published
    back = bench.job("c", version="2026-10-01", lineage=of_run("2026-10-01", "2026-10-01")["lineage"])
    assert bench.publish(back).decision is PublishDecision.OLDER_RUN


def test_a_model_that_was_not_compared_is_not_published_without_force(bench: Bench) -> None:
    bench.publish(bench.job("a"))
    reasons = ("The model was not compared with the champion a: it was not run.",)
    report = bench.job("b", verdict=Verdict(Decision.NOT_COMPARED, reasons), checks="files")
    outcome = bench.publish(report)
    assert outcome.decision is PublishDecision.NOT_COMPARED
    assert reasons[0] in outcome.reason
    assert bench.publish(report, force=Force("anna", "checked by hand")).published


@pytest.mark.parametrize(
    "given",
    [
        {"checks": "files"},
        {"checks": "files", "metrics": {}, "task": "", "thresholds": Thresholds()},
        {"checks": "all", "metrics": {}, "task": "none", "thresholds": Thresholds()},
    ],
    ids=["max_regression", "files", "no task"],
)
def test_of_two_concurrent_first_models_the_second_must_be_compared(bench: Bench, given: dict[str, Any]) -> None:
    """Two concurrent first runs with models that do not run. Neither had a champion to compare with."""
    first: dict[str, Any] = {"verdict": Verdict(Decision.FIRST, ("fine",)), **given}
    one, other = bench.job("one", **first), bench.job("other", **first)
    for report in (one, other):
        bench.storage.delete(JobDir(report.job_dir).predictions)
    assert bench.publish(one).published
    assert bench.publish(other).decision is PublishDecision.NOT_COMPARED
    assert bench.publish(bench.job("third", **{**first, "champion": {}}, require_comparison=False)).published


@pytest.mark.parametrize(
    ("thresholds", "decision"),
    [
        ({"log_loss": {"max_regression": 0.01}}, PublishDecision.NOT_COMPARED),
        ({"log_loss": {"max_regression": 0.01}, "accuracy": {"max_regression": 0.01}}, PublishDecision.PUBLISHED),
    ],
)
def test_a_metric_without_a_value_does_not_count_as_a_comparison(
    bench: Bench, thresholds: dict[str, Any], decision: PublishDecision
) -> None:
    """The champion has changed since the validation, and the stored predictions have classes but no probabilities."""
    report = bench.job("b", accuracy=0.99, thresholds=Thresholds.from_json(thresholds))
    bench.publish(bench.job("a"))
    outcome = bench.publish(report)
    assert outcome.decision is decision, outcome.reason
    if decision is PublishDecision.NOT_COMPARED:
        assert "the champion is now a" in outcome.reason
        assert bench.publish(replace(report, require_comparison=False)).published


def test_a_task_recognises_its_own_publication(bench: Bench) -> None:
    me = {"dag_id": "d", "run_id": "r", "task_id": "publish", "map_index": -1}
    report = bench.job("a")
    assert bench.publish(report, publisher=me).swapped
    again = bench.publish(report, publisher=me)
    assert (again.decision, again.swapped) == (PublishDecision.ALREADY_CHAMPION, True)
    other = bench.publish(report, publisher={**me, "run_id": "r2"})
    assert (other.decision, other.swapped) == (PublishDecision.ALREADY_CHAMPION, False)
    assert not bench.publish(report).swapped
    # If another user rolls back to this model, that is not the task's own publication.
    bench.publish(bench.job("b"))
    rollback(bench.storage, bench.bucket, "mnist", by="anna", why="b is slow")
    back = bench.publish(report, publisher=me)
    assert (back.decision, back.swapped) == (PublishDecision.ALREADY_CHAMPION, False)


def test_a_champion_published_after_the_validation_is_compared_by_predictions(bench: Bench) -> None:
    bench.publish(bench.job("a", accuracy=0.97))
    better, equal, worse = bench.job("b", accuracy=0.99), bench.job("c", accuracy=0.99), bench.job("d", accuracy=0.95)
    assert bench.publish(better).published
    assert bench.publish(equal).decision is PublishDecision.PUBLISHED
    outcome = bench.publish(worse)
    assert outcome.decision is PublishDecision.WORSE
    assert "Worse than the champion: accuracy is 0.95, the champion's is 0.99 (c)" in outcome.reason
    without_predictions = bench.job("e", champion={"serial": 1, "job_id": "a"})
    bench.storage.delete(JobDir(without_predictions.job_dir).predictions)
    assert bench.publish(without_predictions).decision is PublishDecision.NOT_COMPARED
    assert bench.serials() == [(1, "a"), (2, "b"), (3, "c")]


def test_files_that_changed_after_the_validation_are_not_published(bench: Bench) -> None:
    report = bench.job("a")
    bench.storage.write(report.model_uri + "/saved_model.pb", b"something else")
    with pytest.raises(PublishError, match="changed after it was validated"):
        bench.publish(report)
    bench.storage.delete(report.model_uri + "/saved_model.pb")
    with pytest.raises(PublishError, match="incomplete"):
        bench.publish(report)
    assert not bench.storage.exists(bench.pointer)


def test_a_job_with_a_new_export_can_be_published_again(bench: Bench) -> None:
    bench.publish(bench.job("a"))
    bench.publish(bench.job("b"))
    job_dir = JobDir.of(bench.bucket, "mnist", "a")
    bench.storage.write(job_dir.model + "saved_model.pb", b"another model")
    export = resolve(bench.storage, job_dir.model)
    again = replace(load_report(bench.storage, job_dir), fingerprint=export.fingerprint)
    assert bench.publish(again).published
    assert bench.serials() == [(1, "a"), (2, "b"), (3, "a")]
    # A rollback to the entry whose files were overwritten is refused.
    with pytest.raises(PublishError, match="changed after it was validated"):
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="?", to=1)


def test_each_rollback_goes_back_one_entry(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.publish(bench.job(name))
    back = rollback(bench.storage, bench.bucket, "mnist", by="anna", why="c is slow")
    assert (back.job_id, back.serial, back.action, back.restores) == ("b", 4, Action.ROLLED_BACK, 2)
    assert (back.by, back.why) == ("anna", "c is slow")
    assert rollback(bench.storage, bench.bucket, "mnist", by="anna", why="b too").job_id == "a"
    with pytest.raises(PublishError, match="first champion"):
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="a too")
    assert rollback(bench.storage, bench.bucket, "mnist", by="anna", why="c after all", to=3).job_id == "c"
    assert bench.serials() == [(1, "a"), (2, "b"), (3, "c"), (4, "b"), (5, "a"), (6, "c")]
    with pytest.raises(PublishError, match="already the champion of mnist"):
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="again", to=3)
    with pytest.raises(PublishError, match="no champion with serial 9"):
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="?", to=9)
    # After rollbacks, the next model is published as usual.
    assert bench.publish(bench.job("d")).published


def test_a_champion_with_a_new_export_is_compared_again(bench: Bench) -> None:
    """The champion's job has exported a different model since the validation of the job that is now published."""
    bench.publish(bench.job("champion", accuracy=0.9))
    late = bench.job("late", accuracy=0.9)
    better = bench.job("champion", accuracy=0.99)
    bench.storage.write(better.model_uri + "/saved_model.pb", b"exported again")
    bench.publish(replace(better, fingerprint=resolve(bench.storage, better.model_uri).fingerprint))
    assert bench.serials() == [(1, "champion"), (2, "champion")]
    assert bench.publish(late).decision is PublishDecision.WORSE
    known = {name: value for name, value in late.champion.items() if name != "fingerprint"}  # a report of version 0.1
    assert bench.publish(replace(late, champion=known)).decision is PublishDecision.WORSE


def test_rollback_to_an_entry_outside_the_history_is_refused(bench: Bench) -> None:
    first = bench.publish(bench.job("a")).champion
    assert first is not None
    lost = replace(first, serial=2, job_id="lost", previous=1)
    bench.storage.create(layout.champion_entry(bench.bucket, "mnist", 2), lost.to_bytes())
    bench.publish(bench.job("b"))
    assert bench.serials() == [(1, "a"), (3, "b")]
    with pytest.raises(PublishError, match="model mnist has no champion with serial 2") as caught:
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="?", to=2)
    assert caught.value.hint == "see mlengine models history mnist"


def test_rollback_to_an_earlier_entry_of_the_same_model_is_refused(bench: Bench) -> None:
    again = bench.job("a")
    bench.publish(again)
    bench.publish(bench.job("b"))
    assert bench.publish(again, force=Force("anna", "b is slow")).published
    with pytest.raises(PublishError, match="a is already the champion of mnist"):
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="?", to=1)
    assert rollback(bench.storage, bench.bucket, "mnist", by="anna", why="a is bad").job_id == "b"


def test_rollback_to_a_deleted_model_is_refused(bench: Bench) -> None:
    lost = bench.job("a")
    bench.publish(lost)
    bench.publish(bench.job("b"))
    delete_below(bench.storage, lost.model_uri)
    with pytest.raises(PublishError, match="the model of a is incomplete"):
        rollback(bench.storage, bench.bucket, "mnist", by="anna", why="b is bad")
    assert bench.serials() == [(1, "a"), (2, "b")]


def test_concurrent_publications_leave_one_linear_history(bench: Bench) -> None:
    bench.publish(bench.job("seed"))
    reports = [bench.job(f"job{at}") for at in range(6)]
    start = threading.Barrier(len(reports))

    def race(report: Report) -> Outcome:
        start.wait()
        return bench.publish(report)

    with ThreadPoolExecutor(len(reports)) as pool:
        outcomes = list(pool.map(race, reports))
    assert all(outcome.published for outcome in outcomes)
    chain = bench.serials()
    assert sorted(name for _, name in chain) == sorted(["seed", *(report.job_id for report in reports)])
    # Each entry names its predecessor: no entry was replaced by a publication that had not seen it.
    found = history(bench.storage, bench.bucket, "mnist")
    assert [was.previous for was in found] == [*(was.serial for was in found[1:]), None]


def test_concurrent_rollbacks_go_back_one_entry_each(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.publish(bench.job(name))
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda who: rollback(bench.storage, bench.bucket, "mnist", by=who, why="bad"), ("anna", "bob"))
        )
    assert sorted(back.job_id for back in done) == ["a", "b"]
    assert bench.serials()[-1][1] == "a"


class Crash(BaseException):
    pass


def crash_before_the_swap(bench: Bench, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: object) -> int:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(bench.storage, "replace", crash)
        with pytest.raises(Crash):
            bench.publish(report)


def test_a_crash_before_the_swap_does_not_block_later_publications(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(bench.job("a"))
    report = bench.job("b")
    crash_before_the_swap(bench, report, monkeypatch)
    assert bench.storage.exists(layout.champion_entry(bench.bucket, "mnist", 2))
    # Readers still see the old champion, and the history has no new entry.
    assert bench.serials() == [(1, "a")]
    # Another process publishes first and skips the entry of the crashed one.
    assert bench.publish(bench.job("c")).published
    assert bench.serials() == [(1, "a"), (3, "c")]
    # The crashed task is retried.
    assert bench.publish(report).published
    assert bench.serials() == [(1, "a"), (3, "c"), (4, "b")]


def test_a_retry_right_after_the_crash_uses_its_own_entry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publish(bench.job("a"))
    report = bench.job("b")
    crash_before_the_swap(bench, report, monkeypatch)
    assert bench.publish(report).decision is PublishDecision.PUBLISHED
    assert bench.serials() == [(1, "a"), (2, "b")]


def test_readers_always_see_a_complete_champion(bench: Bench) -> None:
    """While other threads publish, every read returns a complete entry whose files exist."""
    bench.publish(bench.job("job0"))
    reports = [bench.job(f"job{at}") for at in range(1, 6)]
    done = threading.Event()
    seen: list[Champion] = []

    def read() -> None:
        while not done.is_set():
            champion = current(bench.storage, bench.bucket, "mnist")
            assert champion is not None
            assert bench.storage.read(champion.model_uri + "/saved_model.pb") == champion.job_id.encode()
            seen.append(champion)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for report in reports:
            bench.publish(report)
        done.set()
        for reader in readers:
            reader.result()
    assert [champion.serial for champion in seen] != []
    assert {champion.job_id for champion in seen} <= {f"job{at}" for at in range(6)}


def test_an_invalid_pointer_is_refused(bench: Bench) -> None:
    bench.storage.write(bench.pointer, b"{}")
    with pytest.raises(PublishError, match="is not a valid champion entry"):
        current(bench.storage, bench.bucket, "mnist")
