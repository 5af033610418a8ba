"""The request for a job file, validated with the message classes that Google generated."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from google.cloud.aiplatform_v1.types import custom_job as messages  # noqa: TID251 - the reference, in tests only
from google.protobuf import json_format

from mlengine.backends import Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.request import custom_job, label_value, merge
from mlengine.backends.vertex.start_command import start_command
from mlengine.core.errors import BackendError
from mlengine.core.expansion import expand
from mlengine.core.job_file import parse
from mlengine.core.spec import Role, TrainingSpec
from mlengine.emulator import vertex_jobs

CUSTOM = """
trainingInput:
  scaleTier: CUSTOM
  masterType: complex_model_m
  workerType: standard_gpu
  parameterServerType: large_model
  evaluatorType: n1-standard-4
  workerCount: 9
  parameterServerCount: 3
  evaluatorCount: 1
  pythonModule: trainer.task
  packageUris: [gs://staging/packages/trainer/abc/trainer-0.1.0.tar.gz]
  args: ["--batch_size", "100"]
  region: us-central1
  scheduling: {maxRunningTime: 7200s, maxWaitTime: 3600s}
  serviceAccount: trainer@project.iam.gserviceaccount.com
  network: projects/1/global/networks/net
"""


def submit(spec: TrainingSpec, **options: Any) -> dict[str, Any]:
    submission = Submission("a" * 40, "mnist_1", 2, "gs://bkt/mnist/mnist_1", spec, {"dag": "Retrain.MNIST"})
    body = dict(custom_job(submission, VertexOptions.of(options)).body)
    # Rejects unknown fields, wrong types and unknown enum values, as the service does.
    json_format.ParseDict(body, messages.CustomJob.pb(messages.CustomJob()))
    return body


def pool(body: dict[str, Any], index: int) -> dict[str, Any]:
    found: dict[str, Any] = body["jobSpec"]["workerPoolSpecs"][index]
    return found


def test_an_ml_engine_job_file_becomes_four_pools() -> None:
    body = submit(parse.load(CUSTOM))
    assert [found["replicaCount"] for found in body["jobSpec"]["workerPoolSpecs"]] == ["1", "9", "3", "1"]
    assert pool(body, 0)["machineSpec"] == {"machineType": "n1-highcpu-16"}
    # The K80 was switched off, so its replacement is requested.
    expected = {"machineType": "n1-standard-8", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}
    assert pool(body, 1)["machineSpec"] == expected
    assert body["jobSpec"]["scheduling"] == {"timeout": "7200s"}
    assert body["jobSpec"]["serviceAccount"] == "trainer@project.iam.gserviceaccount.com"
    assert body["jobSpec"]["network"] == "projects/1/global/networks/net"
    assert body["jobSpec"]["baseOutputDirectory"] == {"outputUriPrefix": "gs://bkt/mnist/mnist_1"}
    assert body["displayName"] == "mnist_1"


def test_discontinued_machines_are_named_with_their_replacement() -> None:
    submission = Submission("a" * 40, "j", 1, "gs://bkt/m/j", parse.load(CUSTOM))
    notes = "\n".join(custom_job(submission, VertexOptions()).notes)
    assert "NVIDIA_TESLA_K80" in notes
    assert "NVIDIA_TESLA_T4" in notes
    assert "n1-highcpu-16" in notes


def test_a_missing_role_becomes_an_empty_pool() -> None:
    text = CUSTOM.replace("workerCount: 9", "workerCount: 0").replace("evaluatorCount: 1", "evaluatorCount: 0")
    pools = submit(parse.load(text))["jobSpec"]["workerPoolSpecs"]
    assert len(pools) == 3
    assert pools[1] == {}


def test_the_default_is_a_python_image_with_the_start_command() -> None:
    container = pool(submit(parse.load(CUSTOM)), 1)["containerSpec"]
    assert container["imageUri"] == "python:3.11-slim"
    assert container["command"] == ["python3", "-c", start_command()]
    plan = json.loads(container["args"][0])
    assert set(plan) == vertex_jobs._PLAN, "the emulator runs such jobs without the start command"
    assert plan["module"] == "trainer.task"
    assert plan["packages"] == ["gs://staging/packages/trainer/abc/trainer-0.1.0.tar.gz"]
    assert container["args"][1:] == ["--batch_size", "100", "--job-dir", "gs://bkt/mnist/mnist_1"]
    assert {"name": "MLENGINE_ATTEMPT", "value": "2"} in container["env"]
    image = pool(submit(parse.load(CUSTOM), image_uri="docker.example/mine:1"), 0)["containerSpec"]["imageUri"]
    assert image == "docker.example/mine:1"


ONE = """
trainingInput:
  pythonModule: trainer.task
  packageUris: [gs://staging/trainer-0.1.0.tar.gz]
  args: ["--pattern", "$(date)-$$"]
"""


def test_variable_references_in_an_ml_engine_job_file_are_escaped() -> None:
    container = pool(submit(parse.load(ONE)), 0)["containerSpec"]
    assert container["args"][1:3] == ["--pattern", "$$(date)-$$$"]
    assert expand(container["args"][2], {"date": "today"}) == "$(date)-$$"
    plan = json.loads(expand(container["args"][0], {}))
    assert plan["tf_config"]["cluster"] == {"master": ["127.0.0.1:2222"]}
    assert plan["tf_config"]["job"]["args"] == ["--pattern", "$(date)-$$"]


def test_a_single_replica_of_an_image_gets_tf_config_as_a_variable() -> None:
    text = ONE.replace("packageUris: [gs://staging/trainer-0.1.0.tar.gz]", "masterConfig: {imageUri: example/mine:1}")
    variables = pool(submit(parse.load(text)), 0)["containerSpec"]["env"]
    found = {variable["name"]: variable["value"] for variable in variables}
    assert json.loads(expand(found["TF_CONFIG"], {}))["task"] == {"type": "master", "index": 0}


def test_an_image_of_a_cluster_gets_a_note_about_the_name_of_its_chief() -> None:
    text = CUSTOM.replace("  packageUris: [gs://staging/packages/trainer/abc/trainer-0.1.0.tar.gz]\n", "").replace(
        "  masterType: complex_model_m", "  masterType: n1-standard-4\n  masterConfig: {imageUri: example/mine:1}"
    )
    submission = Submission("a" * 40, "j", 1, "gs://bkt/m/j", parse.load(text))
    assert 'it calls the first replica "chief", not "master"' in "".join(custom_job(submission, VertexOptions()).notes)
    assert "TF_CONFIG" not in json.dumps(custom_job(submission, VertexOptions()).body)


VERTEX = """
workerPoolSpecs:
- machineSpec: {machineType: n1-standard-8}
  pythonPackageSpec:
    packageUris: [gs://staging/trainer-0.1.0.tar.gz]
    pythonModule: trainer.task
    args: ["--out=$(AIP_CHECKPOINT_DIR)$(NAME)", "$$(NAME)"]
    env: [{name: NAME, value: "x"}]
"""


def test_vertex_ais_variables_are_expanded_by_the_service() -> None:
    container = pool(submit(parse.load(VERTEX)), 0)["containerSpec"]
    # The service expands AIP_CHECKPOINT_DIR to its own directory, not to the one in the trainer's environment.
    assert container["args"][1:3] == ["--out=gs://bkt/mnist/mnist_1/train/$(NAME)", "$$(NAME)"]
    assert json.loads(container["args"][0])["tf_config"] is None


def test_event_files_go_to_the_dir_that_a_tensorboard_instance_reads() -> None:
    text = VERTEX.replace("$(AIP_CHECKPOINT_DIR)", "$(AIP_TENSORBOARD_LOG_DIR)")
    instance = "projects/1/locations/r/tensorboards/2"
    for options, folder in (
        ({}, "train"),
        ({"tensorboard": instance}, "logs"),
        ({"raw": {"jobSpec": {"tensorboard": instance}}}, "logs"),
    ):
        args = pool(submit(parse.load(text), **options), 0)["containerSpec"]["args"]
        assert args[1] == f"--out=gs://bkt/mnist/mnist_1/{folder}/$(NAME)"
        assert json.loads(args[0])["tensorboard"] is (folder == "logs")


def test_given_args_replace_those_of_an_image_in_vertex_ais_format() -> None:
    text = "workerPoolSpecs: [{machineSpec: {machineType: n1-standard-4}, containerSpec: {imageUri: i, args: [--a]}}]"
    spec = parse.override(parse.load(text), args=["--b"])
    assert pool(submit(spec), 0)["containerSpec"]["args"][:1] == ["--b"]


def test_an_executor_image_can_have_a_package_spec() -> None:
    executor = "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest"
    package = pool(submit(parse.load(CUSTOM), executor_image_uri=executor), 2)["pythonPackageSpec"]
    assert package["executorImageUri"] == executor
    assert package["pythonModule"] == "trainer.task"
    assert package["args"][-2:] == ["--job-dir", "gs://bkt/mnist/mnist_1"]


def test_a_custom_image_runs_its_own_command() -> None:
    text = """
    trainingInput:
      scaleTier: CUSTOM
      masterType: n1-standard-4
      masterConfig: {imageUri: docker.example/me/mine:1, containerArgs: [train], diskConfig: {bootDiskSizeGb: 200}}
    """
    chief = pool(submit(parse.load(text)), 0)
    container = {**chief["containerSpec"], "env": None}
    assert container["imageUri"] == "docker.example/me/mine:1"
    assert "command" not in container
    assert container["args"] == ["train", "--job-dir", "gs://bkt/mnist/mnist_1"]
    assert chief["diskSpec"] == {"bootDiskSizeGb": 200}


def test_replicas_that_run_the_chiefs_image_run_its_command() -> None:
    text = """
    trainingInput:
      scaleTier: CUSTOM
      masterType: n1-standard-4
      masterConfig: {imageUri: docker.example/me/mine:1, containerCommand: [python3], containerArgs: [-m, x]}
      workerType: n1-standard-8
      workerCount: 2
      workerConfig: {acceleratorConfig: {type: NVIDIA_TESLA_T4, count: 1}, diskConfig: {bootDiskSizeGb: 200}}
      parameterServerType: n1-standard-4
      parameterServerCount: 1
      parameterServerConfig: {imageUri: docker.example/me/servers:1}
    """
    body = submit(parse.load(text))
    worker, server = pool(body, 1)["containerSpec"], pool(body, 2)["containerSpec"]
    assert worker["imageUri"] == "docker.example/me/mine:1"
    assert worker["command"] == ["python3"]
    assert worker["args"][:2] == ["-m", "x"]
    assert server["imageUri"] == "docker.example/me/servers:1"
    assert "command" not in server


@pytest.mark.parametrize(("name", "expected"), [("", []), ("--out", ["--out", "gs://bkt/mnist/mnist_1"])])
def test_a_trainer_without_the_argument_for_the_job_dir_does_not_get_it(name: str, expected: list[str]) -> None:
    spec = replace(parse.load(CUSTOM), job_dir_arg=name)
    start = pool(submit(spec), 2)["containerSpec"]["args"]
    assert start[1:] == ["--batch_size", "100", *expected]
    executor = pool(submit(spec, executor_image_uri="us-docker.pkg.dev/any:latest"), 2)["pythonPackageSpec"]
    assert executor["args"] == ["--batch_size", "100", *expected]
    text = "workerPoolSpecs: [{machineSpec: {machineType: n1-standard-4}, containerSpec: {imageUri: i, args: [--a]}}]"
    image = pool(submit(replace(parse.load(text), job_dir_arg=name)), 0)
    assert image["containerSpec"]["args"] == ["--a", *expected]


def test_a_job_file_in_vertex_ais_format_keeps_unknown_fields() -> None:
    text = """
    worker_pool_specs:
      - machine_spec: {machine_type: n1-standard-8, gpu_partition_size: ""}
        replica_count: 1
        nfs_mounts: [{server: 10.0.0.1, path: /data, mount_point: data}]
        container_spec: {image_uri: docker.example/mine, command: [python, -m, mine], args: [--lr, "1"]}
    scheduling: {timeout: 60s, strategy: SPOT}
    experiment: projects/1/locations/r/metadataStores/d/contexts/e
    """
    body = submit(parse.load(text))
    assert pool(body, 0)["nfsMounts"] == [{"server": "10.0.0.1", "path": "/data", "mountPoint": "data"}]
    assert pool(body, 0)["containerSpec"]["command"] == ["python", "-m", "mine"]
    assert pool(body, 0)["containerSpec"]["args"][:2] == ["--lr", "1"]
    assert body["jobSpec"]["scheduling"] == {"timeout": "60s", "strategy": "SPOT"}
    assert body["jobSpec"]["experiment"].endswith("/e")


def test_typed_options_and_raw_are_combined() -> None:
    body = submit(
        parse.load(CUSTOM),
        spot=True,
        timeout_seconds=600,
        restart_on_worker_restart=True,
        service_account="me@p.iam.gserviceaccount.com",
        tensorboard="projects/1/locations/r/tensorboards/2",
        encryption_key="projects/p/locations/r/keyRings/k/cryptoKeys/c",
        web_access=True,
        reservation="projects/p/zones/z/reservations/r",
        boot_disk_gb=100,
        raw={
            "jobSpec": {
                "experimentRun": "run",
                "workerPoolSpecs": [{"diskSpec": {"bootDiskType": "pd-ssd"}}, {}, {}, {}],
            }
        },
    )
    spec = body["jobSpec"]
    assert spec["scheduling"] == {"timeout": "600s", "strategy": "SPOT", "restartJobOnWorkerRestart": True}
    assert spec["serviceAccount"] == "me@p.iam.gserviceaccount.com"
    assert pool(body, 0)["diskSpec"] == {"bootDiskSizeGb": 100, "bootDiskType": "pd-ssd"}
    assert pool(body, 1)["diskSpec"] == {"bootDiskSizeGb": 100}
    assert pool(body, 0)["machineSpec"]["reservationAffinity"]["values"] == ["projects/p/zones/z/reservations/r"]
    assert spec["experimentRun"] == "run"
    assert body["encryptionSpec"]["kmsKeyName"].endswith("/c")


def test_options_for_networks_experiments_and_access_are_sent() -> None:
    experiment = "projects/p/locations/r/metadataStores/default/contexts/e"
    body = submit(
        parse.load(CUSTOM),
        reserved_ip_ranges=["range-1"],
        psc_interface={
            "network_attachment": "a",
            "dns_peering_configs": [{"domain": "corp.", "target_project": "p", "target_network": "n"}],
        },
        nfs_mounts=[{"server": "10.0.0.2", "path": "/data", "mount_point": "data"}],
        experiment=experiment,
        experiment_run=f"{experiment}-1",
        dashboard_access=True,
        reservation="any",
    )
    spec = body["jobSpec"]
    assert spec["reservedIpRanges"] == ["range-1"]
    assert spec["pscInterfaceConfig"] == {
        "networkAttachment": "a",
        "dnsPeeringConfigs": [{"domain": "corp.", "targetProject": "p", "targetNetwork": "n"}],
    }
    assert (spec["experiment"], spec["experimentRun"]) == (experiment, f"{experiment}-1")
    assert spec["enableDashboardAccess"] is True
    for one in spec["workerPoolSpecs"]:
        assert one["nfsMounts"] == [{"server": "10.0.0.2", "path": "/data", "mountPoint": "data"}]
        assert one["machineSpec"]["reservationAffinity"] == {"reservationAffinityType": "ANY_RESERVATION"}


def test_flex_start_uses_the_wait_limit_of_the_job_file() -> None:
    scheduling = submit(parse.load(CUSTOM), flex_start=True)["jobSpec"]["scheduling"]
    assert scheduling == {"timeout": "7200s", "maxWaitDuration": "3600s", "strategy": "FLEX_START"}


VERTEX_FILE = """
workerPoolSpecs:
- machineSpec: {machineType: g2-standard-4, acceleratorType: NVIDIA_L4, acceleratorCount: 1}
  replicaCount: 1
  pythonPackageSpec: {executorImageUri: e, packageUris: [gs://bkt/t-1.tar.gz], pythonModule: t.task}
scheduling: {strategy: STRATEGY, maxWaitDuration: WAIT}
"""


@pytest.mark.parametrize(
    ("strategy", "wait", "options", "sent", "kept"),
    [
        ("FLEX_START", "3600s", {}, "3600s", 3600.0),
        ("FLEX_START", "0s", {}, "0s", math.inf),
        ("FLEX_START", "3600s", {"max_wait_seconds": 0}, "0s", math.inf),
        ("FLEX_START", "0s", {"max_wait_seconds": 60}, "60s", 60.0),
        ("SPOT", "3600s", {}, None, 3600.0),  # the service has no such limit
        ("SPOT", "0s", {}, None, math.inf),
        ("STANDARD", "3600s", {"max_wait_seconds": 0}, None, math.inf),
    ],
)
def test_the_wait_limit_is_sent_for_flex_start_and_recorded_for_all(
    strategy: str, wait: str, options: dict[str, Any], sent: str | None, kept: float
) -> None:
    spec = parse.load(VERTEX_FILE.replace("STRATEGY", strategy).replace("WAIT", wait))
    scheduling = submit(spec, **options)["jobSpec"]["scheduling"]
    assert (scheduling["strategy"], scheduling.get("maxWaitDuration")) == (strategy, sent)
    assert VertexBackend(**options).max_wait_seconds(spec) == kept


def test_the_wait_limit_of_an_ml_engine_job_file_is_used() -> None:
    spec = parse.load(CUSTOM)
    assert "maxWaitDuration" not in submit(spec)["jobSpec"]["scheduling"]
    assert submit(spec, flex_start=True, max_wait_seconds=0)["jobSpec"]["scheduling"]["maxWaitDuration"] == "0s"
    assert VertexBackend().max_wait_seconds(spec) == 3600
    assert VertexBackend(max_wait_seconds=0).max_wait_seconds(spec) == math.inf
    assert VertexBackend(max_wait_seconds=60).max_wait_seconds(spec) == 60
    assert VertexBackend().max_wait_seconds(TrainingSpec("t.task")) is None


def test_low_cost_in_an_ml_engine_job_file_means_spot() -> None:
    text = CUSTOM.replace("maxWaitTime: 3600s}", "strategy: LOW_COST}")
    assert submit(parse.load(text))["jobSpec"]["scheduling"] == {"timeout": "7200s", "strategy": "SPOT"}


def test_labels_are_made_valid_and_cannot_replace_mlengines_own() -> None:
    body = submit(parse.load(CUSTOM), labels={"mlengine-key": "stolen", "Team": "Größe 1"})
    assert body["labels"] == {
        "dag": "retrain_mnist",
        "mlengine-key": "k" + "a" * 40,
        "mlengine-attempt": "2",
        "team": "größe_1",
    }
    assert len(label_value("x" * 100)) == 63


def variables(task: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in task["env"]}


def test_replicas_get_variables_of_their_accelerators() -> None:
    body = submit(parse.load(CUSTOM.replace("standard_gpu", "complex_model_m_gpu")))
    assert "MLENGINE_ACCELERATOR_TYPE" not in variables(pool(body, 0)["containerSpec"])
    worker = variables(pool(body, 1)["containerSpec"])
    assert (worker["MLENGINE_ACCELERATOR_TYPE"], worker["MLENGINE_ACCELERATOR_COUNT"]) == ("NVIDIA_TESLA_T4", "4")
    # For every source of accelerators and every kind of job: raw fields, the user's own image, a TPU.
    raw = {"jobSpec": {"workerPoolSpecs": [{"machineSpec": {"acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}}]}}
    chief = variables(pool(submit(parse.load(ONE), machine_type="g2-standard-24", raw=raw), 0)["containerSpec"])
    assert (chief["MLENGINE_ACCELERATOR_TYPE"], chief["MLENGINE_ACCELERATOR_COUNT"]) == ("NVIDIA_L4", "2")
    for machine, name, count in (("ct6e-standard-4t", "TPU_V6E", "4"), ("tpu7x-standard-4t", "TPU_7X", "4")):
        text = VERTEX.replace("n1-standard-8", machine)
        found = variables(pool(submit(parse.load(text), executor_image_uri="example/executor"), 0)["pythonPackageSpec"])
        assert (found["MLENGINE_ACCELERATOR_TYPE"], found["MLENGINE_ACCELERATOR_COUNT"]) == (name, count)


def test_a_variable_set_by_the_user_takes_precedence() -> None:
    text = VERTEX.replace("n1-standard-8", "g2-standard-8")
    body = submit(parse.load(text), env={"MLENGINE_ACCELERATOR_TYPE": ""})
    found = variables(pool(body, 0)["containerSpec"])
    assert (found["MLENGINE_ACCELERATOR_TYPE"], found["MLENGINE_ACCELERATOR_COUNT"]) == ("", "1")


def test_the_shown_yaml_omits_the_source_of_the_start_command() -> None:
    submission = Submission("a" * 40, "mnist_1", 1, "gs://bkt/m/j", parse.load(CUSTOM))
    text = custom_job(submission, VertexOptions()).to_yaml()
    assert "import" not in text
    command = yaml.safe_load(text)["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["command"]
    assert command == ["python3", "-c", "<mlengine's start command>"]


def test_unknown_options_are_named() -> None:
    with pytest.raises(BackendError, match="no setting 'spott'"):
        VertexOptions.of({"spott": True})
    with pytest.raises(BackendError, match="two ways"):
        VertexOptions(spot=True, flex_start=True)


def test_merge_replaces_lists_of_another_length() -> None:
    assert merge({"a": [{"x": 1}], "b": {"c": 1}}, {"a": [1, 2], "b": {"d": 2}}) == {"a": [1, 2], "b": {"c": 1, "d": 2}}


CONTAINER = """
trainingInput:
  scaleTier: CUSTOM
  master_type: n1-standard-4
  master_config:
    image_uri: gcr.io/p/trainer:1
    container_command: [python, -m, task]
    container_args: [--epochs, "5"]
    disk_config: {boot_disk_size_gb: 500}
  encryption_config: {kms_key_name: projects/p/locations/l/keyRings/r/cryptoKeys/k}
  scheduling: {strategy: SPOT}
"""
POOLS = """
displayName: x
encryptionSpec: {kms_key_name: projects/p/locations/l/keyRings/r/cryptoKeys/k}
jobSpec:
  scheduling: null
  workerPoolSpecs:
  - machineSpec: {machineType: n1-standard-8, acceleratorType: NVIDIA_TESLA_T4, acceleratorCount: 1}
    replicaCount: 1
    containerSpec: {imageUri: "gcr.io/p/trainer:1", command: [python, -m, task], args: [--epochs, "5"]}
    diskSpec: null
"""


def test_the_operators_args_replace_those_of_the_container() -> None:
    spec = parse.load(CONTAINER)
    assert pool(submit(spec), 0)["containerSpec"]["args"][:2] == ["--epochs", "5"]
    changed = parse.override(spec, args=[*spec.args, "--data-dir", "gs://bkt/datasets/mnist/v1"])
    args = pool(submit(changed), 0)["containerSpec"]["args"]
    assert args == ["--epochs", "5", "--data-dir", "gs://bkt/datasets/mnist/v1", "--job-dir", "gs://bkt/mnist/mnist_1"]


def test_snake_case_is_read_at_every_level() -> None:
    body = submit(parse.load(CONTAINER))
    assert pool(body, 0)["containerSpec"]["command"] == ["python", "-m", "task"]
    assert pool(body, 0)["diskSpec"] == {"bootDiskSizeGb": 500}
    assert body["encryptionSpec"] == {"kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}


def test_the_encryption_key_of_vertex_ais_format_is_used() -> None:
    assert submit(parse.load(POOLS))["encryptionSpec"] == {
        "kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    }


@pytest.mark.parametrize("strategy", ["SPOT", "FLEX_START"])
def test_a_strategy_is_sent_in_both_formats(strategy: str) -> None:
    for text in (
        CONTAINER.replace("SPOT", strategy),
        POOLS.replace("scheduling: null", f"scheduling: {{strategy: {strategy}}}"),
    ):
        assert submit(parse.load(text))["jobSpec"]["scheduling"]["strategy"] == strategy


def test_a_given_tier_drops_the_accelerators_of_the_file() -> None:
    package = "pythonPackageSpec: {packageUris: [gs://bkt/p/t-1.0.tar.gz], pythonModule: t.task}"
    module = re.sub(r"containerSpec: .*", package, POOLS)
    spec = parse.load(module)
    assert pool(submit(spec), 0)["machineSpec"]["acceleratorType"] == "NVIDIA_TESLA_T4"
    assert pool(submit(parse.override(spec, scale_tier="BASIC")), 0)["machineSpec"] == {"machineType": "n1-standard-4"}


@pytest.mark.parametrize("text", [CONTAINER, POOLS])
def test_a_given_tier_keeps_the_container(text: str) -> None:
    body = submit(parse.override(parse.load(text), scale_tier="STANDARD_1"))
    expected = submit(parse.load(text))["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    pools = body["jobSpec"]["workerPoolSpecs"]
    assert [found["replicaCount"] for found in pools] == ["1", "4", "3"]
    assert {found["machineSpec"]["machineType"] for found in pools} == {"n1-standard-8", "n1-standard-4"}
    for found in pools:
        assert found["containerSpec"]["imageUri"] == expected["imageUri"]
        assert found["containerSpec"]["args"] == expected["args"]


@pytest.mark.parametrize("text", [CONTAINER, POOLS])
def test_an_added_role_runs_the_chiefs_command(text: str) -> None:
    body = submit(parse.override(parse.load(text), counts={Role.WORKER: 2}))
    chief, worker = pool(body, 0), pool(body, 1)
    for name in ("imageUri", "command", "args"):
        assert worker["containerSpec"][name] == chief["containerSpec"][name]
    assert worker.get("diskSpec") == chief.get("diskSpec")
    assert "acceleratorType" not in worker["machineSpec"]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"displayName": "job1"}, "displayName"),
        ({"jobSpec": {"baseOutputDirectory": {"outputUriPrefix": "gs://b/j"}}}, "baseOutputDirectory"),
        ({"labels": {"mlengine-key": "k1"}}, "mlengine-key"),
        ({"labels": {"mlengine-attempt": "1"}}, "mlengine-attempt"),
        ({"job_spec": {}}, "job_spec"),
        ({"jobSpec": {"worker_pool_specs": []}}, "worker_pool_specs"),
    ],
)
def test_raw_cannot_replace_the_fields_that_identify_the_job(raw: dict[str, Any], path: str) -> None:
    """A job that cannot be identified would be submitted twice, and billed twice."""
    with pytest.raises(BackendError, match=f"raw (sets|has) {path}"):
        submit(parse.load(CUSTOM), raw=raw)


@pytest.mark.parametrize(
    ("version", "image"), [("3.14", "python:3.14-slim"), ("3.11.2", "python:3.11.2-slim"), ("3.7", "python:3.11-slim")]
)
def test_the_image_has_the_python_version_of_the_job_file(version: str, image: str) -> None:
    spec = parse.load(CUSTOM.replace("  region:", f'  pythonVersion: "{version}"\n  region:'))
    assert pool(submit(spec), 0)["containerSpec"]["imageUri"] == image


@pytest.mark.parametrize(
    ("scheduling", "options", "restarts", "note"),
    [
        ("resilientToWorkerRestart: false", {}, True, ""),
        ("resilientToWorkerRestart: true", {}, None, ""),
        ("resilientToWorkerRestart: false", {"disable_retries": True}, None, "resilientToWorkerRestart is ignored"),
        ("priority: 5", {}, None, "scheduling.priority (5) is ignored: Vertex AI has no priorities"),
        ("priority: 0", {}, None, ""),
    ],
)
def test_the_schedulers_fields_of_ml_engine_are_mapped_or_noted(
    scheduling: str, options: dict[str, Any], restarts: bool | None, note: str
) -> None:
    spec = parse.load(CUSTOM.replace("maxWaitTime: 3600s", scheduling))
    assert submit(spec, **options)["jobSpec"]["scheduling"].get("restartJobOnWorkerRestart") is restarts
    shown = VertexBackend(region="us-central1", **options).show(
        Submission("a" * 40, "mnist_1", 2, "gs://bkt/mnist/mnist_1", spec)
    )
    assert note in shown
    assert ("is ignored" in shown) is bool(note)


@pytest.mark.parametrize(
    ("image", "python"),
    [
        ("", "3.11"),
        ("python:3.12.4-slim", "3.12"),
        ("us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest", "3.10"),
        ("us-docker.pkg.dev/vertex-ai/training/tf-gpu.2-17.py310", "3.10"),
        ("europe-docker.pkg.dev/p/r/my-python:3", None),
        ("europe-docker.pkg.dev/p/r/image.python3:1", None),
    ],
)
def test_the_python_that_the_name_of_an_image_says(image: str, python: str | None) -> None:
    spec = parse.load(CUSTOM)
    assert VertexBackend(image_uri=image or None).python_of(spec) == python
    if image:
        assert VertexBackend(executor_image_uri=image).python_of(spec) == python
