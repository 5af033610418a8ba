"""The paths in the bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core import layout
from mlengine.core.errors import StorageError
from mlengine.core.layout import JobDir

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,5}", fullmatch=True)


@given(st.from_regex(r"[a-z0-9]{3,9}", fullmatch=True), st.text(max_size=20))
def test_uris_are_split_and_joined(bucket: str, path: str) -> None:
    assert layout.split_uri(f"gs://{bucket}/{path}") == (bucket, path)
    assert layout.split_uri(f"gs://{bucket}") == (bucket, "")


@pytest.mark.parametrize(
    "uri",
    ["", "gs://", "gs:///x", "bucket/x", "s3://bucket/x", "gs://ab/x", "gs://Bucket/x", "/tmp/x", "gs://bucket\n"],
)
def test_an_invalid_uri_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="not a Cloud Storage URI") as caught:
        layout.split_uri(uri)
    assert "gs://BUCKET" in caught.value.hint


@given(st.lists(names, max_size=4))
def test_join_writes_single_slashes(parts: list[str]) -> None:
    expected = "/".join(["gs://bucket", *parts])
    assert layout.join("gs://bucket", *parts) == expected
    assert layout.join("gs://bucket/", *(f"/{part}/" for part in parts[:-1]), *parts[-1:]) == expected


def test_join_keeps_a_trailing_slash_and_drops_empty_parts() -> None:
    assert layout.join("gs://bucket", "a", "b/") == "gs://bucket/a/b/"
    assert layout.join("gs://bucket", "a", "") == "gs://bucket/a/"
    assert layout.join("gs://bucket/a", "", "b") == "gs://bucket/a/b"


@pytest.mark.parametrize("bucket", ["bucket", "gs://bucket", "gs://bucket/"])
def test_the_paths_of_a_job(bucket: str) -> None:
    job = JobDir.of(bucket, "mnist", "mnist_1")
    assert job.uri == "gs://bucket/mnist/mnist_1"
    assert job.job_id == "mnist_1"
    assert job.claim == "gs://bucket/mnist/mnist_1/job.json"
    assert job.train == "gs://bucket/mnist/mnist_1/train/"
    assert job.model == "gs://bucket/mnist/mnist_1/model/"
    assert job.logs == "gs://bucket/mnist/mnist_1/logs/"
    assert job.report == "gs://bucket/mnist/mnist_1/report.json"
    assert job.progress == "gs://bucket/mnist/mnist_1/train/progress.json"
    assert job.metrics == "gs://bucket/mnist/mnist_1/train/metrics.jsonl"


@pytest.mark.parametrize("uri", ["gs://bucket", "gs://bucket/", "gs://bucket//"])
def test_a_bucket_without_a_path_is_refused_as_job_dir(uri: str) -> None:
    with pytest.raises(StorageError, match="is a bucket without a path") as caught:
        JobDir(uri)
    assert "gs://bucket/FOLDER" in caught.value.hint


def test_an_invalid_uri_is_refused_as_job_dir() -> None:
    with pytest.raises(StorageError, match="not a Cloud Storage URI"):
        JobDir("out")


def test_a_trailing_slash_of_a_job_dir_is_ignored() -> None:
    assert JobDir("gs://bucket/proj/") == JobDir("gs://bucket/proj")
    assert JobDir("gs://bucket/proj/").claim == "gs://bucket/proj/job.json"


def test_alternative_job_dirs_are_numbered() -> None:
    job = JobDir("gs://bucket/mnist/mnist_1")
    assert [job.numbered(number).job_id for number in (1, 2, 3)] == ["mnist_1", "mnist_1_2", "mnist_1_3"]


def test_the_paths_of_packages_datasets_and_champions() -> None:
    assert layout.package_uri("bucket", "trainer", "abc", "t-1.tar.gz") == "gs://bucket/packages/trainer/abc/t-1.tar.gz"
    assert layout.dataset_dir("gs://bucket/team", "mnist", "2026-11-01") == "gs://bucket/team/datasets/mnist/2026-11-01"
    assert layout.datasets_prefix("bucket", "mnist") == "gs://bucket/datasets/mnist/"
    assert layout.model_prefix("bucket", "mnist") == "gs://bucket/mnist/"
    assert layout.champion("bucket", "mnist") == "gs://bucket/mnist/champion.json"
    assert layout.champion_entry("bucket", "mnist", 7) == "gs://bucket/mnist/champions/000007.json"


@pytest.mark.parametrize("name", ["mnist", "a", "a-b_c9", "x" * 40])
def test_valid_model_names_are_accepted(name: str) -> None:
    assert layout.check_model_name(name) == name


@pytest.mark.parametrize("name", ["", "Mnist", "9a", "-a", "a/b", "a.b", "..", "packages", "datasets", "x" * 41, "a\n"])
def test_invalid_model_names_are_refused(name: str) -> None:
    with pytest.raises(StorageError, match="not a model name"):
        layout.check_model_name(name)
    with pytest.raises(StorageError):
        JobDir.of("bucket", name, "j")
    with pytest.raises(StorageError):
        layout.champion("bucket", name)


def test_every_path_of_a_job_is_below_its_dir() -> None:
    job = JobDir("gs://bucket/mnist/mnist_1")
    for path in (job.claim, job.train, job.model, job.logs, job.report, job.progress, job.metrics):
        assert path.startswith(job.uri + "/")
