"""``entries:list``: pages, order, tokens, and rejected requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlengine.backends import LogLine
from mlengine.core.errors import EmulatorApiError
from mlengine.core.job import JobState
from mlengine.emulator import log_entries
from mlengine.emulator.http import as_dict
from mlengine.emulator.journal import Journal
from mlengine.emulator.log_store import Lines
from mlengine.emulator.records import MLENGINE, Record
from mlengine.testing.backend import MemoryBackend
from tests.unit.emulator.test_engine import record
from tests.unit.emulator.test_journal import HANDLE, LoggingBackend

JOBS = [record("7"), record("8"), replace(record("9"), project="other"), record("Census_1", MLENGINE)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(MemoryBackend(), tmp_path)
    yield opened
    opened.close()


def list_entries(journal: Journal, records: list[Record], body: dict[str, Any]) -> dict[str, Any]:
    return as_dict(log_entries.list_entries(journal, records, body, list))


def write(journal: Journal, job: Record, *texts: str, severity: int = 200) -> None:
    journal.collect(job)
    stored = journal.log_of(job)
    assert stored is not None
    journal.store.append(stored, [Lines(severity, "workerpool0-0", texts)], {})


def request(**more: Any) -> dict[str, Any]:
    return {"resourceNames": ["projects/p"], "pageSize": 1000, **more}


def texts(answer: dict[str, Any]) -> list[str]:
    return [entry["jsonPayload"]["message"] for entry in answer.get("entries", ())]


def pages(journal: Journal, **more: Any) -> list[list[str]]:
    found, token = [], ""
    while True:
        answer = list_entries(journal, JOBS, request(pageToken=token, **more))
        found.append(texts(answer))
        token = answer.get("nextPageToken", "")
        if not token:
            return found


def test_an_entry_has_the_fields_of_the_service(journal: Journal) -> None:
    write(journal, JOBS[0], "hello", severity=500)
    (entry,) = list_entries(journal, JOBS, request(filter="severity>=ERROR"))["entries"]
    assert entry.pop("timestamp") == entry.pop("receiveTimestamp")
    assert entry == {
        "logName": "projects/p/logs/workerpool0-0",
        "resource": {"type": "ml_job", "labels": {"job_id": "7", "project_id": "p", "task_name": "workerpool0-0"}},
        "severity": "ERROR",
        "insertId": f"{4:012d}",
        "labels": {"ml.googleapis.com/task_name": "workerpool0-0"},
        "jsonPayload": {"message": "hello"},
    }


def test_the_documented_page_sizes_apply(journal: Journal) -> None:
    write(journal, JOBS[0], *map(str, range(1100)))
    for size, expected in ((None, 50), (0, 50), (7, 7), ("8", 8), (1000, 1000), (5000, 1000)):
        assert len(list_entries(journal, JOBS, request(pageSize=size))["entries"]) == expected
    with pytest.raises(EmulatorApiError, match="must not be negative"):
        list_entries(journal, JOBS, request(pageSize=-1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    batches=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([200, 500]), st.integers(1, 4)), max_size=12),
    size=st.integers(1, 7),
    descending=st.booleans(),
    minimum=st.sampled_from([0, 500]),
)
def test_pages_have_each_entry_once_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[int, int, int]],
    size: int,
    descending: bool,
    minimum: int,
) -> None:
    journal = Journal(MemoryBackend(), tmp_path_factory.mktemp("logs"))
    expected = []
    for number, (job, severity, count) in enumerate(batches):
        messages = [f"{number} {place}" for place in range(count)]
        write(journal, JOBS[job], *messages, severity=severity)
        expected += messages if JOBS[job].project == "p" and severity >= minimum else []
    text = f"logName:workerpool0 AND severity>={'ERROR' if minimum else 'DEFAULT'}"
    order = "timestamp desc" if descending else "timestamp asc"
    found = pages(journal, pageSize=size, filter=text, orderBy=order)
    assert [text for page in found for text in page] == (expected[::-1] if descending else expected)
    assert all(len(page) == size for page in found[:-1])
    journal.close()


@pytest.mark.parametrize("order", ["timestamp asc", "timestamp desc"])
def test_tokens_stay_valid_while_lines_are_appended(journal: Journal, order: str) -> None:
    write(journal, JOBS[0], *map(str, range(10)))
    asked = request(filter="logName:workerpool0", orderBy=order, pageSize=4)
    seen, token = [], ""
    for page in range(6):
        answer = list_entries(journal, JOBS, {**asked, "pageToken": token})
        seen += texts(answer)
        token = answer.get("nextPageToken", "")
        if not token:
            break
        write(journal, JOBS[page % 2], f"new {page}")
    old = [text for text in seen if "new" not in text]
    assert old == [str(number) for number in (range(10) if order.endswith("asc") else range(9, -1, -1))]
    assert ("new 0" in seen) is order.endswith("asc")


def test_a_token_belongs_to_its_request(journal: Journal) -> None:
    write(journal, JOBS[0], *"abcdef")
    token = list_entries(journal, JOBS, request(pageSize=2))["nextPageToken"]
    assert list_entries(journal, JOBS, request(pageSize=3, pageToken=token))["entries"]
    for change in ({"filter": "a"}, {"orderBy": "timestamp desc"}, {"resourceNames": ["projects/other"]}):
        with pytest.raises(EmulatorApiError, match="page_token doesn't match"):
            list_entries(journal, JOBS, request(pageToken=token, **change))
    for wrong in ("abc", "e30=", "WzEsMl0=", "bnVsbA=="):
        with pytest.raises(EmulatorApiError, match="Invalid page token"):
            list_entries(journal, JOBS, request(pageToken=wrong))


def test_a_search_with_few_results_returns_within_its_time_limit(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As documented, a page may be empty and have a token with which the search continues."""
    monkeypatch.setattr(log_entries, "MAX_EXAMINED", 20)
    write(journal, JOBS[0], *map(str, range(100)))
    found = pages(journal, filter='jsonPayload.message="77"')
    assert [page for page in found if page] == [["77"]]
    assert len(found) == 6  # for these 100 lines and the four of the service


def test_lines_collected_later_follow_with_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_entries, "COLLECT_SECONDS", 0.0)
    backend = LoggingBackend()
    backend.written += [LogLine("chief-0", str(number)) for number in range(12_000)]
    job = replace(record(), handle=HANDLE, state=JobState.RUNNING, started=1.0)
    expected = [str(number) for number in range(12_000)]
    for order in ("timestamp asc", "timestamp desc"):
        journal = Journal(backend, tmp_path / order)
        seen, token = [], ""
        while True:
            asked = request(filter="logName:workerpool0", orderBy=order, pageToken=token)
            answer = list_entries(journal, [job], asked)
            seen += texts(answer)
            token = answer.get("nextPageToken", "")
            if not token:
                break
        assert seen == (expected[::-1] if order.endswith("desc") else expected)
        journal.close()


def test_the_filter_selects_jobs(journal: Journal) -> None:
    for job in JOBS:
        write(journal, job, f"of {job.id}")
    only = 'logName:"workerpool0" AND '
    for text, expected in (
        ('resource.labels.job_id="7"', ["of 7"]),
        ('resource.labels.job_id="census_1"', ["of Census_1"]),
        ('resource.labels.job_id=("8" OR "7")', ["of 7", "of 8"]),
        ('resource.labels.job_id="9"', []),
        ("resource.labels.project_id=p", ["of 7", "of 8", "of Census_1"]),
        ('resource.type="k8s_container"', []),
    ):
        assert texts(list_entries(journal, JOBS, request(filter=only + text))) == expected, text
    both = request(filter=only + "of", resourceNames=["projects/other"], projectIds=["p"])
    assert texts(list_entries(journal, JOBS, both)) == ["of 7", "of 8", "of 9", "of Census_1"]


def test_the_states_of_other_jobs_are_not_read(journal: Journal) -> None:
    refreshed: list[str] = []

    def refresh(records: Sequence[Record]) -> Sequence[Record]:
        refreshed.extend(job.id for job in records)
        return records

    log_entries.list_entries(journal, JOBS, request(filter='resource.labels.job_id="7"'), refresh)
    assert refreshed == ["7"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, 'Unknown name "colour"'),
        ({"filter": 5}, "Invalid value at 'filter'"),
        ({"filter": "a = = b"}, "Unparseable filter"),
        ({"filter": "thud=1"}, "Unparseable filter"),
        ({"orderBy": "severity"}, "Invalid orderBy"),
        ({"resourceNames": []}, "at least one resource name"),
        ({"resourceNames": ["p"]}, "Invalid resource name"),
        ({"resourceNames": [f"projects/p{number}" for number in range(101)]}, "At most 100 resources"),
    ],
)
def test_invalid_requests_are_refused(journal: Journal, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EmulatorApiError, match=message) as refused:
        list_entries(journal, JOBS, request(**change))
    assert refused.value.status == "INVALID_ARGUMENT"
