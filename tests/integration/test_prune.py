"""Tests which job dirs are pruned and which are kept, in a real bucket with the clock set forward."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace

import pytest

from mlengine.champions.history import Action, Champion
from mlengine.cli import main
from mlengine.cli.jobs import prune
from mlengine.core import layout
from mlengine.core.errors import BackendError
from mlengine.core.job import JobKey, JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Decision, Verdict
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing import faults, gcs
from mlengine.testing.backend import MemoryBackend
from mlengine.validation.cache import Entry
from mlengine.validation.report import Report, store

pytestmark = pytest.mark.integration

DAY = 86_400.0
PREPARED = "m_v1_0123abcd"  # a name such as PrepareJobDirOperator creates


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> MemoryBackend:
    """The backend of all jobs. Commands run with a clock that is 40 days ahead."""
    made = MemoryBackend()
    monkeypatch.setattr(prune, "Backends", lambda _: SimpleNamespace(get=lambda _: made))
    monkeypatch.setattr(prune, "time", SimpleNamespace(time=lambda: time.time() + 40 * DAY))
    return made


def job(storage: Storage, bucket: str, backend: MemoryBackend, name: str, *, ended: bool = True) -> JobDir:
    job_dir = JobDir.of(bucket, "m", name)
    intent = Intent(JobKey("dag", name, "submit"), "m", job_dir, TrainingSpec("trainer.task"))
    submitted = Submitter(storage, backend).submit(intent)
    storage.write(job_dir.train + "ckpt-1.index", b"x" * 100)
    storage.write(job_dir.model + "saved_model.pb", b"x" * 100)
    if ended:
        backend.end(submitted.handle.name, JobState.FAILED)
    return job_dir


def named(storage: Storage, job_dir: JobDir) -> str:
    """The name of the dir's job at the backend."""
    handle = JobRecord.from_bytes(storage.read(job_dir.claim)).handle(job_dir.uri)
    assert handle is not None
    return handle.name


def store_report(storage: Storage, job_dir: JobDir, decision: Decision) -> None:
    report = Report(
        model="m",
        job_id=job_dir.job_id,
        job_dir=job_dir.uri,
        model_uri=job_dir.model,
        verdict=Verdict(decision, ("It is so.",), ()),
        thresholds=Thresholds(),
        checks="all",
        created="2026-01-01T00:00:00+00:00",
    )
    store(storage, report, None, None)


def make_champion(storage: Storage, job_dir: JobDir, serial: int, previous: int | None, model: str = "m") -> Champion:
    bucket = "gs://" + layout.split_uri(job_dir.uri)[0]
    entry = Champion(
        serial=serial,
        model=model,
        job_id=job_dir.job_id,
        job_dir=job_dir.uri,
        model_uri=job_dir.model,
        fingerprint="f",
        dataset={},
        metric="accuracy",
        metric_value=0.9,
        action=Action.PUBLISHED,
        at="2026-01-01T00:00:00+00:00",
        verdict="accepted",
        by="test",
        why="",
        previous=previous,
    )
    storage.create(layout.champion_entry(bucket, model, serial), entry.to_bytes())
    storage.write(layout.champion(bucket, model), entry.to_bytes())
    return entry


def dirs(storage: Storage, bucket: str) -> set[str]:
    return set(storage.list_dirs(layout.model_prefix(bucket, "m"))) - layout.NO_JOBS


def test_prune_keeps_referenced_jobs_and_deletes_the_rest(
    storage: Storage, bucket: str, backend: MemoryBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("rejected", "first", "champion", "reusable", "rolled_back")
    made = {name: job(storage, bucket, backend, name) for name in names}
    job(storage, bucket, backend, "alive", ended=False)
    storage.write(JobDir.of(bucket, "m", PREPARED).train + ".keep", b"")
    make_champion(storage, made["first"], 1, None)
    make_champion(storage, made["rolled_back"], 2, 1)
    make_champion(storage, made["champion"], 3, 1)  # the chain from the pointer omits entry 2, as after a rollback
    entry = Entry("digest", "reusable", made["reusable"].uri, "f", "2026-01-01")
    storage.create(layout.validated(bucket, "m", "digest"), entry.to_bytes())
    storage.write(layout.validated(bucket, "m", "damaged"), b"?")
    package = layout.package_uri(bucket, "trainer", "d", "t.tar.gz")
    storage.write(package, b"x")
    stay = {"alive", "first", "rolled_back", "champion", "reusable"}

    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30"]) == 0
    out, err = capsys.readouterr()
    assert any(line.endswith("/m/rejected") for line in out.splitlines())
    assert re.search(r"^kept gs://\S+/m/alive: its job is (QUEUED|RUNNING)$", err, re.M), err
    assert out.splitlines()[-1] == "2 job dirs, 0.0 MiB would be deleted; add --yes to delete"
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["job_dir"] for one in found} == {made["rejected"].uri, f"{bucket}/m/{PREPARED}"}
    assert not any(one["deleted"] for one in found)
    assert dirs(storage, bucket) == {*stay, "rejected", PREPARED}, "nothing must be deleted without --yes"

    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert dirs(storage, bucket) == stay
    assert storage.exists(package)
    assert storage.exists(layout.champion(bucket, "m"))
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert "no job dirs to delete" in capsys.readouterr().out


def test_folders_that_are_no_job_dirs_are_left_alone(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    """The bucket may also contain Airflow's own logs or a user's raw data."""
    theirs = [f"{bucket}/logs/dag_id=x/run.log", f"{bucket}/raw/2024/a.gz", f"{bucket}/m/notes/train/a.txt"]
    theirs = [uri if uri.startswith("gs://") else f"gs://{uri}" for uri in theirs]
    for uri in theirs:
        storage.write(uri, b"x")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert all(storage.exists(uri) for uri in theirs)


def test_prune_keeps_recent_jobs(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    job(storage, bucket, backend, "young")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "50", "--yes"]) == 0
    assert dirs(storage, bucket) == {"young"}
    with pytest.raises(SystemExit):
        main(["jobs", "prune", "--bucket", bucket, "--older-than", "0", "--yes"])


def test_prune_deletes_nothing_if_the_backend_is_unavailable(
    storage: Storage, bucket: str, backend: MemoryBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    old = [job(storage, bucket, backend, name) for name in ("a", "b")]
    backend.refuse = 1
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 1
    assert "mlengine: " in capsys.readouterr().err
    assert all(storage.exists(one.claim) for one in old)


def test_prune_deletes_nothing_if_a_history_is_unreadable(
    storage: Storage, bucket: str, backend: MemoryBackend
) -> None:
    job(storage, bucket, backend, "old")
    storage.write(layout.champion_entry(bucket, "m", 1), b"?")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 1
    assert dirs(storage, bucket) == {"old"}


def test_prune_deletes_only_failed_and_rejected_jobs(
    storage: Storage, bucket: str, backend: MemoryBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was never validated may be the only copy, such as those of ``mlengine jobs train``."""
    backend.end(named(storage, job(storage, bucket, backend, "unvalidated", ended=False)), JobState.SUCCEEDED)
    for name, decision in (("accepted", Decision.ACCEPTED), ("rejected", Decision.REJECTED)):
        made = job(storage, bucket, backend, name, ended=False)
        backend.end(named(storage, made), JobState.SUCCEEDED)
        store_report(storage, made, decision)
    job(storage, bucket, backend, "failed")
    storage.write(job(storage, bucket, backend, "damaged").report, b"?")
    nameless = job(storage, bucket, backend, "nameless")
    claim = json.loads(storage.read(nameless.claim))
    storage.write(nameless.claim, json.dumps({**claim, "name": None}).encode())
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert dirs(storage, bucket) == {"unvalidated", "accepted", "damaged", "nameless"}
    output = capsys.readouterr().err
    for name, why in {
        "unvalidated": "its job is SUCCEEDED",
        "damaged": "report.json is not JSON",
        "nameless": "no submission is recorded",
    }.items():
        assert any(f"/m/{name}: " in line and why in line for line in output.splitlines()), output


def test_prune_keeps_the_champion_of_another_model(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    made = job(storage, bucket, backend, "elsewhere")
    make_champion(storage, made, 1, None, model="m-prod")
    assert main(["jobs", "prune", "--bucket", bucket, "--model", "m", "--older-than", "30", "--yes"]) == 0
    assert dirs(storage, bucket) == {"elsewhere"}


def test_prune_keeps_a_dir_that_contains_another_job(
    storage: Storage, bucket: str, backend: MemoryBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    store_report(storage, job(storage, bucket, backend, "outer"), Decision.REJECTED)
    store_report(storage, job(storage, bucket, backend, "failed"), Decision.REJECTED)
    inner, champion = job(storage, bucket, backend, "outer/inner"), job(storage, bucket, backend, "failed/champion")
    make_champion(storage, champion, 1, None)
    storage.delete(champion.claim)  # only the history still refers to it
    before = {stat.uri for stat in storage.ls(bucket)}
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert {stat.uri for stat in storage.ls(bucket)} == before
    assert f"/m/outer: it contains another job: {inner.claim}" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["published", "pointer", "written"])
def test_prune_keeps_jobs_that_are_published_or_written_meanwhile(
    storage: Storage,
    bucket: str,
    backend: MemoryBackend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
) -> None:
    """Deleting many job dirs takes minutes, in which other processes may write."""
    made = {name: job(storage, bucket, backend, name) for name in ("first", "second")}
    original = prune.remove

    def remove(storage: Storage, old: prune.OldJob) -> bool:
        if change == "written":
            storage.write(made["second"].report, b"{}")
        else:
            make_champion(storage, made["second"], 1, None, model="another")
            if change == "pointer":
                storage.delete(layout.champion_entry(bucket, "another", 1))
        return original(storage, old)

    monkeypatch.setattr(prune, "remove", remove)
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert dirs(storage, bucket) == {"second"}
    reason = "written to" if change == "written" else "published"
    assert f"/m/second: it has been {reason} since it was listed" in err
    assert "deleted 1 job dir, " in out


def test_prune_keeps_only_the_jobs_of_an_unusable_backend(
    storage: Storage,
    bucket: str,
    backend: MemoryBackend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job(storage, bucket, backend, "old")
    moved = job(storage, bucket, backend, "moved")
    claim = json.loads(storage.read(moved.claim))
    storage.write(moved.claim, json.dumps({**claim, "backend": "gone"}).encode())

    def get(name: str) -> MemoryBackend:
        if name == "gone":
            raise BackendError("no backend named 'gone'")
        return backend

    monkeypatch.setattr(prune, "Backends", lambda _: SimpleNamespace(get=get))
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert dirs(storage, bucket) == {"moved"}
    assert "/m/moved: no backend named 'gone'" in capsys.readouterr().err


def test_prune_deletes_only_the_last_dir_of_a_cleared_task(
    storage: Storage, bucket: str, backend: MemoryBackend
) -> None:
    """A submission tries the dirs in order from the first, and would claim a gap."""
    for name in ("a", "a_2", "a_3"):
        job(storage, bucket, backend, name)
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert dirs(storage, bucket) == {"a", "a_2"}


def test_prune_keeps_a_dir_that_is_claimed_again_meanwhile(
    storage: Storage,
    bucket: str,
    backend: MemoryBackend,
    gcs_server: gcs.GcsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """fake-gcs-server deletes whatever generation is requested, so the proxy responds with 412 in its place."""
    old = job(storage, bucket, backend, "again")
    with faults.before(gcs_server.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.strike(faults.status(412), "DELETE", "job.json")
        assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
        (asked,) = proxy.seen("DELETE", "job.json")
    assert "ifGenerationMatch=" in asked.path
    assert "it is in use again" in capsys.readouterr().err
    assert storage.exists(old.claim)


def users_files(storage: Storage, folder: str) -> dict[str, bytes]:
    """Files that a user keeps in a folder that looks like a job dir."""
    files = {f"{folder}/{name}": name.encode() for name in ("train/part-0.csv", "model/v7.h5", "notes.txt")}
    for uri, data in files.items():
        storage.write(uri, data)
    return files


def test_prune_keeps_a_dir_that_was_not_empty_before_its_job(
    storage: Storage, bucket: str, backend: MemoryBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    files = users_files(storage, f"{bucket}/m/proj")
    failed = job(storage, bucket, backend, "proj")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert {uri: storage.read(uri) for uri in files} == files
    assert storage.exists(failed.claim)
    assert "/m/proj: it was not empty when the job started" in capsys.readouterr().err


def test_prune_deletes_an_unclaimed_dir_only_if_it_is_empty(
    storage: Storage, bucket: str, backend: MemoryBackend
) -> None:
    """The submission was interrupted between the marks and the claim; the other objects belong to a user."""
    files = users_files(storage, f"{bucket}/m/{PREPARED}")
    for mark in ("train/.keep", "model/.keep"):
        storage.write(f"{bucket}/m/{PREPARED}/{mark}", b"")
        storage.write(f"{bucket}/m/empty_folders/{mark}", b"")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert {uri: storage.read(uri) for uri in files} == files
    assert dirs(storage, bucket) == {PREPARED, "empty_folders"}


class Cut(BaseException):
    """Simulates SIGKILL."""


@pytest.mark.parametrize("done", range(6))
def test_an_interrupted_deletion_is_finished_by_the_next_prune(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    old = job(storage, bucket, backend, "old")
    left = [done]
    original = Storage.delete

    def delete(self: Storage, uri: str, generation: int | None = None) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Cut
        original(self, uri, generation)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "delete", delete)
        with pytest.raises(Cut):
            main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"])
    assert dirs(storage, bucket) == {"old"}
    theirs = old.train + "added_since.txt"
    storage.write(theirs, b"x")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    if done:  # the claim is gone, so only the listed objects are deleted
        assert [stat.uri for stat in storage.ls(old.uri + "/")] == [theirs]
    else:
        assert dirs(storage, bucket) == set()


def test_an_invalid_journal_deletes_nothing(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    files = users_files(storage, f"{bucket}/m/proj")
    storage.write(f"{bucket}/m/proj/.mlengine-prune.json", b"?")
    assert main(["jobs", "prune", "--bucket", bucket, "--older-than", "30", "--yes"]) == 0
    assert {uri: storage.read(uri) for uri in files} == files
