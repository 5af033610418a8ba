"""Tests that trainers as users write them end as expected, on the local backend and in a Vertex AI container."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
from scripts.bootstrap import STATE

from mlengine.backends.local.backend import LocalBackend
from mlengine.packaging.archive import read_archive
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from tests.support import local_jobs
from tests.support.trainer_corpus import Case, Ended, Outcome, Places, Refused, cases

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]
CASES = {case.folder.name: case for case in cases()}
_WORKERS = 3


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, gcs_server: gcs.GcsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """The outcome of each selected case. Several run concurrently, because they mostly wait."""
    scratch = tmp_path_factory.mktemp("trainers")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gcs_server.env.items():
            patch.setenv(name, value)
        patch.setenv("PIP_CACHE_DIR", str(STATE / "cache" / "pip"))
        patch.setenv("PIP_NO_COMPILE", "1")  # compiling is most of what pip does for a small package
        storage = Storage()
        storage.client.create_bucket("trainers")
        backend = LocalBackend(
            scratch / "state",
            max_concurrent_jobs=_WORKERS,
            keep_environments=len(CASES),
            termination_grace_seconds=2.0,
            linger_seconds=2.0,
            log_upload_timeout_seconds=0,
        )
        places = Places(storage, "gs://trainers", backend, scratch)
        selected = dict.fromkeys(
            str(item.callspec.params["name"])
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
        )
        pool = ThreadPoolExecutor(_WORKERS)
        try:
            running = {name: pool.submit(places.run, CASES[name]) for name in selected}
            # pytest changes os.environ between tests, and a thread that reads it at that moment fails.
            wait(running.values())
            yield running
        finally:
            pool.shutdown(cancel_futures=True)
            local_jobs.end_everything(backend)


@pytest.mark.parametrize("name", CASES)
def test_trainer(name: str, outcomes: dict[str, Future[Outcome]], gcs_server: gcs.GcsServer) -> None:
    case, outcome = CASES[name], outcomes[name].result()
    assert (outcome.refusal is None) == (case.refused is None or case.refused.stage != "package"), outcome.refusal
    if case.refused is not None and case.refused.stage == "package":
        check_words(case.refused, str(outcome.refusal), case.refused.words)
        return
    check_package(case, outcome)
    assert outcome.local is not None
    assert outcome.cloud is not None
    check_end(case, outcome.local, case.refused.uv if case.refused else [])
    check_end(case, outcome.cloud, case.refused.pip if case.refused else [])
    assert outcome.local.installed == outcome.cloud.installed, "both backends must install the same packages"
    assert outcome.local.exit_code == outcome.cloud.exit_code


def test_the_corpus_has_the_documented_size() -> None:
    assert len(CASES) >= 25
    assert all((case.run is None) != (case.refused is None) for case in CASES.values())
    assert all(case.about.endswith(".") for case in CASES.values())


def check_package(case: Case, outcome: Outcome) -> None:
    packaged, expected = outcome.packaged, case.package
    assert packaged is not None
    assert expected is not None
    assert [uri.rsplit("/", 1)[1] for uri in packaged.uris] == expected.names
    first = packaged.uris[0]
    paths = read_archive(Storage().read(first), first.rsplit("/", 1)[1], first).paths
    assert set(expected.files) <= paths
    assert not set(expected.absent) & paths
    assert set(expected.left_out) <= {left.path for left in packaged.left_out}


def check_end(case: Case, ended: Ended, installer_words: list[str]) -> None:
    if case.run is not None:
        assert ended.exit_code == 0, ended
        assert case.run.prints in ended.output.splitlines(), ended.output
        assert set(case.run.installs) <= set(ended.installed)
    elif case.refused is not None and case.refused.stage == "environment":
        assert ended.refusal, ended
        check_words(case.refused, ended.refusal, [*case.refused.words, *installer_words])
    elif case.refused is not None:
        assert case.refused.stage == "run"
        assert not ended.refusal, ended
        assert ended.exit_code == case.refused.exit_code
        check_words(case.refused, ended.output, case.refused.words)


def check_words(refused: Refused, text: str, words: list[str]) -> None:
    """Check that the text contains all words, ignoring line breaks."""
    flat = " ".join(text.split())
    for word in [*words, refused.hint]:
        assert word in flat, text
