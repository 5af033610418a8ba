"""Arguments and ``TF_CONFIG``: accepted, rejected and ignored values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainer.config import parse
from trainer.distributed.cluster import Cluster
from trainer.errors import UsageError


def _cluster(job: str, index: int = 0, **counts: int) -> Cluster:
    nodes = {role: [f"host:{100 * len(role) + number}" for number in range(count)] for role, count in counts.items()}
    config = {"cluster": nodes, "task": {"type": job, "index": index}, "environment": "cloud", "job": {"x": 1}}
    return Cluster.from_env({"TF_CONFIG": json.dumps(config)})


@pytest.mark.parametrize("text", ["", "  ", None])
def test_without_tf_config_training_is_single_process(text: str | None) -> None:
    cluster = Cluster.from_env({} if text is None else {"TF_CONFIG": text})
    assert cluster.is_chief
    assert not cluster.distributed
    assert cluster.trainers == (("chief", 0),)


@pytest.mark.parametrize("chief", ["chief", "master"])
def test_both_names_of_the_chief_are_accepted(chief: str) -> None:
    cluster = _cluster(chief, **{chief: 1, "worker": 2, "ps": 1})
    assert cluster.is_chief
    assert cluster.chief_job == chief
    assert cluster.name == "chief/0"
    assert cluster.trainers == ((chief, 0), ("worker", 0), ("worker", 1))
    assert _cluster("worker", 1, **{chief: 1, "worker": 2, "ps": 1}).trainer_index == 2


def test_the_evaluator_is_not_in_tensorflows_cluster() -> None:
    cluster = _cluster("evaluator", chief=1, ps=1, evaluator=1)
    assert cluster.has_evaluator
    assert "evaluator" not in cluster.servers
    assert not _cluster("evaluator", chief=1, ps=1).has_evaluator


@pytest.mark.parametrize("job", ["chief", "master"])
def test_a_chief_without_a_cluster_is_single_process(job: str) -> None:
    cluster = Cluster.from_env({"TF_CONFIG": json.dumps({"cluster": {}, "task": {"type": job, "index": 0}})})
    assert cluster.trainers == ((job, 0),)
    assert cluster.trainer_index == 0


def test_cores_are_shared_by_the_trainers_of_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert Cluster().threads() == 8
    assert _cluster("worker", chief=1, worker=3, ps=2).threads() == 2
    config: dict[str, Any] = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "b:2"], "ps": ["c:1"]}}
    for task, expected in (("chief", 8), ("worker", 4), ("ps", 8)):
        text = json.dumps({**config, "task": {"type": task, "index": 0}})
        assert Cluster.from_env({"TF_CONFIG": text}).threads() == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG does not describe"),
        ('{"cluster": {"boss": ["a:1"]}}', "role 'boss'"),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "this is worker/0, but"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "no chief"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}', "no chief"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}', "has 2 chief tasks"),
        ('{"cluster": {"chief": ["a:1"], "master": ["b:1"]}, "task": {"type": "chief"}}', "has 2 chief tasks"),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": -1}}', "this is chief/-1, but"),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 1}}', "this is chief/1, but"),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "evaluator", "index": -1}}', "this is evaluator/-1, but"),
        ('{"task": {"type": "worker", "index": 0}}', "this is worker/0, but"),
        ('{"cluster": {"chief": "10.0.0.1:2222"}}', "'chief' must be a list of host:port, not '10.0.0.1:2222'"),
        ('{"cluster": {"chief": ["a"]}}', "'a', a task of 'chief', is not host:port"),
        ('{"cluster": {"chief": ["a:"]}}', "'a:', a task of 'chief', is not host:port"),
        ('{"cluster": {"chief": [":1"]}}', "is not host:port"),
        ('{"cluster": {"chief": ["a:70000"]}}', "is not host:port"),
        ('{"cluster": {"chief": [7]}}', "7, a task of 'chief', is not host:port"),
    ],
)
def test_an_invalid_tf_config_is_an_error(config: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Cluster.from_env({"TF_CONFIG": config})


def test_directories_are_derived_from_the_job_dir() -> None:
    config = parse(["--dataset", "d", "--job-dir", "gs://b/m/j/"])
    assert (config.log_dir, config.model_dir) == ("gs://b/m/j/train", "gs://b/m/j/model")
    assert config.summary_dir == config.log_dir
    assert (config.batch_size, config.max_steps, config.learning_rate) == (100, 1000, 2e-4)
    config = parse(["--dataset", "d", "--job-dir", "j", "--log_dir", "l", "--model_dir", "m"])
    assert (config.log_dir, config.model_dir) == ("l", "m")


def test_vertex_ai_names_the_directories_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_MODEL_DIR", "gs://b/model/")
    monkeypatch.setenv("AIP_CHECKPOINT_DIR", "gs://b/train/")
    config = parse(["--dataset", "d"])
    assert (config.log_dir, config.model_dir) == ("gs://b/train", "gs://b/model")
    assert config.summary_dir == "gs://b/train"
    # With a TensorBoard instance, the service reads event files in this directory.
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", "gs://b/logs/")
    config = parse(["--dataset", "d", "--job-dir", "gs://b"])
    assert (config.log_dir, config.summary_dir) == ("gs://b/train", "gs://b/logs")


def test_supported_paths_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("gs://b", "file:///x", "/x", "x:1/y", "./gs:/x"):
        assert parse(["--dataset", path, "--job-dir", path]).dataset == path
    monkeypatch.setenv("AIP_MODEL_DIR", "s3://b/model")
    with pytest.raises(UsageError, match="s3://b/model"):
        parse(["--dataset", "d"])


def test_unknown_arguments_of_services_are_ignored() -> None:
    assert parse(["--dataset", "d", "--max_steps", "7", "--some-service-flag", "x"]).max_steps == 7
    # No abbreviations: --data of a training service must not set --dataset.
    assert parse(["--dataset", "d", "--max", "7"]).max_steps == 1000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no --dataset"),
        (["--dataset", "d", "--max_steps", "0"], "--max_steps must be more"),
        (["--dataset", "s3://bucket/x"], "s3://bucket/x cannot be opened: write gs://BUCKET/PATH"),
        (["--dataset", "d", "--job-dir", "gs:/bucket/x"], "gs:/bucket/x cannot be opened"),
        (["--dataset", "d", "--job-dir", "GS://bucket/x"], "GS://bucket/x cannot be opened"),
        (["--dataset", "d", "--job-dir", "gs://"], "gs:// has no bucket"),
        (["--dataset", "d", "--log_dir", "gs:///x"], "gs:///x has no bucket"),
        (["--dataset", "d", "--model_dir", "file:/x"], "file:/x cannot be opened"),
        (["--dataset", "d", "--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["--dataset", "d", "--threads", "-1"], "--threads must be 0 or more, not -1"),
        (["--dataset", "d", "--patience", "nan"], "--patience must be a finite number, not nan"),
        (["--dataset", "d", "--step_timeout", "inf"], "--step_timeout must be a finite number, not inf"),
        (["--dataset", "d", "--learning_rate", "nan"], "--learning_rate must be a finite number, not nan"),
        (["--dataset", "d", "--eval_examples", "-1"], "--eval_examples must be 0 or more, not -1"),
    ],
)
def test_invalid_arguments_are_an_error(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(argv)
