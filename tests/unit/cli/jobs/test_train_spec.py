"""The flags and the job file of ``mlengine jobs train`` are merged first and then checked."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import pytest

from mlengine.cli import build_parser, main
from mlengine.cli.jobs.train_spec import spec_of
from mlengine.core.errors import JobFileError
from mlengine.core.job_file import parse
from mlengine.core.spec import Pool, Role, TrainingSpec

CHIEF, WORKER, PS, EVALUATOR = Role


def spec(
    *flags: str, file: str | None = None, tmp_path: Path | None = None, user_args: tuple[str, ...] = ()
) -> TrainingSpec:
    words = ["jobs", "train", "mnist_1", *flags]
    if file is not None:
        assert tmp_path is not None
        (tmp_path / "config.yaml").write_text(file)
        words += ["--config", str(tmp_path / "config.yaml")]
    args = build_parser().parse_args(words)
    args.user_args = user_args
    return spec_of(args)


CUSTOM_FLAGS = (
    *("--scale-tier", "custom", "--master-machine-type", "n1-standard-8", "--worker-count", "2"),
    *("--worker-machine-type", "n1-standard-4", "--parameter-server-count", "1"),
    *("--parameter-server-machine-type", "n1-highmem-8"),
)
CUSTOM_POOLS = (
    Pool(CHIEF, 1, "n1-standard-8"),
    Pool(WORKER, 2, "n1-standard-4"),
    Pool(PS, 1, "n1-highmem-8"),
)


def test_gclouds_custom_cluster_needs_no_job_file() -> None:
    made = spec(*CUSTOM_FLAGS, "--module-name", "trainer.task", "--region", "us-central1")
    assert (made.scale_tier, made.pools) == ("CUSTOM", CUSTOM_POOLS)
    assert parse.load({"trainingInput": dict(made.source)}).pools == made.pools


TYPES = "masterType: n1-standard-8, workerType: n1-standard-4, parameterServerType: n1-highmem-8"


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (CUSTOM_FLAGS, "region: us-central1"),
        (CUSTOM_FLAGS, "scaleTier: BASIC"),
        (("--scale-tier=custom", "--worker-count=2"), f"{TYPES}, parameterServerCount: 1"),
        (("--scale-tier=CUSTOM",), f"{TYPES}, parameterServerCount: 1, workerCount: 2"),
        (
            ("--master-machine-type", "n1-standard-8", "--worker-count", "2"),
            f"scaleTier: CUSTOM, {TYPES}, parameterServerCount: 1, worker_count: 9".replace(
                "n1-standard-8", "standard"
            ),
        ),
    ],
)
def test_flags_and_job_file_are_combined(flags: tuple[str, ...], fields: str, tmp_path: Path) -> None:
    made = spec(*flags, file=f"trainingInput: {{{fields}}}", tmp_path=tmp_path)
    assert (made.scale_tier, made.pools) == ("CUSTOM", CUSTOM_POOLS)


def test_machine_types_of_a_tier_are_kept_if_only_counts_are_given(tmp_path: Path) -> None:
    for made in (
        spec("--scale-tier", "standard-1", "--worker-count", "2"),
        spec("--worker-count", "2", file="trainingInput: {scaleTier: STANDARD_1}", tmp_path=tmp_path),
        spec(
            "--scale-tier=custom", "--worker-count=2", file="trainingInput: {scaleTier: STANDARD_1}", tmp_path=tmp_path
        ),
    ):
        assert made.scale_tier == "CUSTOM"
        assert made.pools == (
            Pool(CHIEF, 1, "n1-highcpu-8"), Pool(WORKER, 2, "n1-highcpu-8"), Pool(PS, 3, "n1-standard-4")
        )  # fmt: skip
    made = spec("--scale-tier", "basic-gpu", "--worker-count", "1")
    assert made.pools == (Pool(CHIEF, 1, "n1-standard-8", "NVIDIA_TESLA_K80", 1), Pool(WORKER, 1, "n1-standard-8"))


def test_a_new_role_runs_on_the_chiefs_machine_type() -> None:
    made = spec("--worker-count", "1", "--evaluator-count", "1", "--master-machine-type", "n1-highmem-8")
    assert [(pool.role, pool.machine_type) for pool in made.pools] == [
        (CHIEF, "n1-highmem-8"), (WORKER, "n1-highmem-8"), (EVALUATOR, "n1-highmem-8")
    ]  # fmt: skip
    distributed = spec("--distributed", "--worker-count", "3")
    assert (distributed.count(WORKER), distributed.count(PS)) == (3, 2)


def test_a_given_tier_replaces_the_cluster_of_the_file(tmp_path: Path) -> None:
    file = "trainingInput: {scaleTier: CUSTOM, masterType: standard, workerType: standard, workerCount: 9, region: r}"
    made = spec("--scale-tier", "standard-1", file=file, tmp_path=tmp_path)
    assert (made.scale_tier, made.count(WORKER), made.region) == ("STANDARD_1", 4, "r")


def test_a_flag_replaces_only_its_own_field(tmp_path: Path) -> None:
    file = """
trainingInput:
  args: [--a, b]
  region: us-central1
  runtimeVersion: "2.11"
  scheduling: {max_running_time: 60s, maxWaitTime: 3600s}
labels: {team: vision, cost: low}
"""
    made = spec(
        *("--region", "europe-west1", "--max-running-time", "7200", "--labels", "team=speech,empty="),
        *("--job-dir", "gs://bucket/out/run/"),
        file=file, tmp_path=tmp_path, user_args=("--x",),
    )  # fmt: skip
    assert (made.args, made.region, made.runtime_version) == (("--x",), "europe-west1", "2.11")
    assert (made.max_running_seconds, made.max_wait_seconds) == (7200, 3600)
    assert made.labels == {"team": "speech", "cost": "low", "empty": ""}
    assert made.job_dir == "gs://bucket/out/run/"
    assert made.primary_name == "chief"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ((), "master"),
        (("--runtime-version", "2.11"), "chief"),
        (("--use-chief-in-tf-config",), "chief"),
        (("--runtime-version", "2.11", "--no-use-chief-in-tf-config"), "master"),
    ],
)
def test_the_name_of_the_chief_follows_gclouds_flags(flags: tuple[str, ...], name: str) -> None:
    assert spec(*flags).primary_name == name


@pytest.mark.parametrize(
    ("flags", "expected"), [((), "--job-dir"), (("--job-dir-arg", ""), ""), (("--job-dir-arg=-o",), "-o")]
)
def test_the_argument_for_the_job_dir_can_be_renamed_or_omitted(flags: tuple[str, ...], expected: str) -> None:
    assert spec("--module-name", "t.task", *flags).job_dir_arg == expected


VERTEX = """
workerPoolSpecs:
- machineSpec: {machineType: n1-standard-4}
  pythonPackageSpec: {packageUris: [gs://bkt/t-1.tar.gz], pythonModule: t.task, args: [--a]}
"""


def test_flags_are_applied_to_vertex_ais_format(tmp_path: Path) -> None:
    made = spec(
        *("--worker-count", "2", "--worker-machine-type", "n1-highmem-8", "--module-name", "t.other"),
        *("--max-running-time", "60s", "--job-dir", "gs://bkt/out", "--python-version", "3.12"),
        file=VERTEX, tmp_path=tmp_path, user_args=("--b",),
    )  # fmt: skip
    assert made.pools == (Pool(CHIEF, 1, "n1-standard-4"), Pool(WORKER, 2, "n1-highmem-8"))
    assert (made.module, made.args, made.max_running_seconds) == ("t.other", ("--b",), 60)
    assert (made.job_dir, made.python_version, made.primary_name) == ("gs://bkt/out", "3.12", "chief")


@pytest.mark.parametrize(
    ("flags", "file", "message"),
    [
        (("--worker-count", "1000000000"), None, "--worker-count: is 1000000000"),
        (("--worker-count", "1000000000"), VERTEX, "--worker-count: is 1000000000"),
        (("--parameter-server-count", "-1"), None, "--parameter-server-count: is -1"),
        (("--scale-tier", "custom", "--worker-count", "1"), None, "--scale-tier: is CUSTOM, and there is no machine"),
        (("--scale-tier", "huge", "--worker-count", "1"), None, "--scale-tier: is not a scale tier: 'HUGE'"),
        (("--worker-machine-type", "n1-standard-4"), None, "--worker-machine-type: is given, and"),
        (("--worker-machine-type", "n1-standard-4"), VERTEX, "--worker-machine-type: is given, but"),
        (("--master-machine-type", "n1"), None, "--master-machine-type: is not a machine type: 'n1'"),
        (("--module-name", "trainer/task.py"), None, "--module-name: is a path"),
        (("--job-dir", "out"), None, "--job-dir: not a Cloud Storage URI: 'out'"),
        (("--job-dir", "gs://bucket"), None, "--job-dir: is a bucket without a path"),
        (("--job-dir", "out"), VERTEX, "--job-dir: not a Cloud Storage URI: 'out'"),
        (("--runtime-version", "2.11"), VERTEX, "--runtime-version: does not apply"),
        (("--runtime-version", "new"), None, "--runtime-version: is not a version: 'new'"),
        (("--max-running-time", "2h"), None, "--max-running-time: is not a duration: 2h"),
        (("--max-running-time", "0"), None, "--max-running-time: leaves no time to train"),
        (("--labels", "a"), None, "--labels: 'a' has no value"),
        (("--labels", "a=1,a=2"), None, "--labels: 'a' is given twice"),
        (("--labels", "Team=vision"), None, "--labels: Team: is not a label: 'Team': 'vision'"),
        ((), "trainingInput:\n  scaleTier: CUSTOM\n", "config.yaml:2: trainingInput.scaleTier: is CUSTOM"),
        (("--worker-count", "1"), "trainingInput:\n  workerType: no\n", "config.yaml:2: trainingInput.workerType:"),
    ],
)  # fmt: skip
def test_errors_name_the_flag_or_the_line(
    flags: tuple[str, ...], file: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(JobFileError) as caught:
        spec(*flags, file=file, tmp_path=tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["exp#3", "1st", "a-b", "", "x" * 129])
def test_an_invalid_job_id_is_refused_with_the_allowed_form(name: str) -> None:
    args = build_parser().parse_args(["jobs", "train", name])
    args.user_args = ()
    with pytest.raises(JobFileError, match=r"^JOB: is not a job id: .*\n.*letters, digits and underscores"):
        spec_of(args)


@pytest.mark.parametrize("command", [["jobs", "train", "j"], ["jobs", "rerun", "gs://bkt/m/j"]])
@pytest.mark.parametrize("number", ["0", "-1", "1000", "three"])
def test_an_invalid_number_of_attempts_is_refused(command: list[str], number: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([*command, "--max-attempts", number])
    assert re.search(r"argument --max-attempts: (is |not an integer)", capsys.readouterr().err)


def test_a_syntax_error_is_found_for_the_python_of_the_backend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "hello"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "task.py").write_text("print 'hello'\n")
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(tmp_path / "state"))
    train = ["jobs", "train", "j", "--package-path", str(package), "--module-name", "hello.task", "--dry-run"]
    train += ["--job-dir", "gs://bkt/m/j", "--backend"]
    for backend, python in (("local", platform.python_version()), ("vertex", "3.11")):
        assert main([*train, backend]) == 1
        assert f"the trainer runs on Python {python}" in capsys.readouterr().err
    image = "image_uri=europe-docker.pkg.dev/p/r/i:1"
    assert main([*train, "vertex", "--set", image]) == 0
    assert "unless the trainer's Python accepts it" in capsys.readouterr().out
