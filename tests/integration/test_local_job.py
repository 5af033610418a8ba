"""Tests one job on the local backend from submission to its end, with real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.errors import BackendError
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.rendezvous import rendezvous_variables
from mlengine.storage.client import Storage
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
HELLO = Path(__file__).parents[2] / "examples" / "hello"
PRINT_CLUSTER = """
tell = {"config": config, "args": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
(scratch / "part").write_text(json.dumps(tell))
(scratch / "part").rename(scratch.parent.parent / f"seen-{scratch.name}.json")
"""
WAIT_FOR_ALL = """
for name in ("worker-0", "worker-1", "ps-0", "evaluator-0"):
    until(scratch.parent.parent / f"seen-{name}.json")
"""


def seen(backend: LocalBackend, handle: JobHandle) -> dict[str, dict[str, Any]]:
    """What each replica found in its environment when it started."""
    root = backend._job(handle.name).root
    return {path.stem.removeprefix("seen-"): json.loads(path.read_text()) for path in root.glob("seen-*.json")}


def test_the_hello_example_trains_on_a_cluster(
    make_backend: Make, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    shutil.copytree(HELLO, tmp_path / "hello")
    subprocess.run([find_uv_bin(), "build", "-q", "--sdist", "-o", tmp_path / "dist", tmp_path / "hello"], check=True)
    uri = local.put(storage, bucket, (tmp_path / "dist" / "hello-1.0.0.tar.gz").read_bytes(), "hello-1.0.0.tar.gz")
    spec = local.spec(uri, worker=2, ps=1, module="hello.task", args=("--max_steps", "3", "--name", "Anna & Bob"))
    backend = make_backend(linger_seconds=60.0)  # workers may start later than the chief
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED
    lines = local.texts(backend, handle)
    assert "chief-0: step 1: Hallo, Anna & Bob!" in lines
    assert "worker-1: step 3: こんにちは, Anna & Bob!" in lines
    assert "ps-0: ps-0 of 4 says:" in lines
    result = json.loads(storage.read(f"{handle.job_dir}/model/result.json"))
    sizes = {name: len(found) for name, found in result["cluster"]["cluster"].items()}
    assert sizes == {"chief": 1, "worker": 2, "ps": 1}
    assert json.loads(storage.read(f"{handle.job_dir}/train/progress.json"))["step"] == 3


def test_every_replica_gets_the_same_cluster_and_its_own_task(make_backend: Make, actor: str, bucket: str) -> None:
    spec = local.spec(
        actor,
        worker=2,
        ps=1,
        evaluator=1,
        primary_name="master",
        # The chief must wait for all replicas: the job ends with its chief, even if another replica has only just
        # started.
        args=local.acts(
            chief=PRINT_CLUSTER + WAIT_FOR_ALL, worker=PRINT_CLUSTER, ps=PRINT_CLUSTER, evaluator=PRINT_CLUSTER
        ),
    )
    backend = make_backend()
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED
    views = seen(backend, handle)
    tasks = {replica: view["config"]["task"] for replica, view in views.items()}
    assert tasks == {
        "chief-0": {"type": "master", "index": 0},
        "worker-0": {"type": "worker", "index": 0},
        "worker-1": {"type": "worker", "index": 1},
        "ps-0": {"type": "ps", "index": 0},
        "evaluator-0": {"type": "evaluator", "index": 0},
    }
    clusters = [view["config"]["cluster"] for view in views.values()]
    assert all(cluster == clusters[0] for cluster in clusters)
    addresses = [address for found in clusters[0].values() for address in found]
    assert len(set(addresses)) == 4
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    # For frameworks that do not use TF_CONFIG, the chief is rank 0 and has three more ports, which no other job uses.
    given = {replica: set(view["env"]) & set(rendezvous_variables({})) for replica, view in views.items()}
    assert not given["ps-0"] | given["evaluator-0"]
    ranks = {name: views[name]["env"]["RANK"] for name in ("chief-0", "worker-0", "worker-1")}
    assert ranks == {"chief-0": "0", "worker-0": "1", "worker-1": "2"}
    assert {views[name]["env"]["WORLD_SIZE"] for name in ranks} == {"3"}
    contacts = [contacts_of(views[name]["env"]) for name in ranks]
    assert contacts[1:] == contacts[:2], "all processes must get the same rendezvous addresses"
    assert len({*contacts[0], *addresses}) == 7
    found = {name: json.loads(view["env"]["CLUSTER_SPEC"]) for name, view in views.items()}
    assert {name: (spec["task"]["type"], spec["task"]["index"]) for name, spec in found.items()} == {
        "chief-0": ("workerpool0", 0),
        "worker-0": ("workerpool1", 0),
        "worker-1": ("workerpool1", 1),
        "ps-0": ("workerpool2", 0),
        "evaluator-0": ("workerpool3", 0),
    }
    pools = found["worker-1"]["cluster"]
    assert all(spec["cluster"] == pools for spec in found.values())
    assert {name: pools[name] for name in ("workerpool0", "workerpool1", "workerpool2")} == {
        "workerpool0": clusters[0]["master"],
        "workerpool1": clusters[0]["worker"],
        "workerpool2": clusters[0]["ps"],
    }
    assert views["worker-1"]["env"]["LIGHTGBM_MACHINES"].split(",") == [*clusters[0]["master"], *clusters[0]["worker"]]


RENDEZVOUS = """
spec = json.loads(os.environ["CLUSTER_SPEC"])
world = [(pool, index) for pool in sorted(spec["cluster"]) for index in range(len(spec["cluster"][pool]))]
rank = world.index((spec["task"]["type"], spec["task"]["index"]))
host, _, port = spec["cluster"]["workerpool0"][0].rpartition(":")
if rank == 0:
    server = socket.create_server((host, int(port)))
    met = sorted(server.accept()[0].recv(1).decode() for _ in world[1:])
    say("met", met)
else:
    while True:
        try:
            socket.create_connection((host, int(port))).sendall(str(rank).encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""


def test_a_trainer_for_vertex_ai_finds_its_cluster_without_tf_config(
    make_backend: Make, actor: str, bucket: str
) -> None:
    """As PyTorch trainers on Vertex AI do: ranks from ``CLUSTER_SPEC``, rendezvous at the address of workerpool0."""
    backend = make_backend()
    handle, status = local.run(
        backend, bucket, local.spec(actor, worker=2, args=local.acts(chief=RENDEZVOUS, worker=RENDEZVOUS))
    )
    assert status.state is JobState.SUCCEEDED
    assert "chief-0: met ['1', '2']" in local.texts(backend, handle)


def contacts_of(env: dict[str, str]) -> list[str]:
    """The addresses at which the processes of PyTorch, JAX and XGBoost meet."""
    torch, xgboost = (env["MASTER_ADDR"], env["MASTER_PORT"]), (env["DMLC_TRACKER_URI"], env["DMLC_TRACKER_PORT"])
    return [":".join(torch), env["JAX_COORDINATOR_ADDRESS"], ":".join(xgboost)]


def test_a_single_replica_has_world_size_1_and_keeps_the_jobs_variables(
    make_backend: Make, actor: str, bucket: str
) -> None:
    backend = make_backend()
    spec = local.spec(actor, args=local.acts(chief=PRINT_CLUSTER), env={"MASTER_PORT": "4711", "RANK": ""})
    handle, _ = local.run(backend, bucket, spec)
    env = seen(backend, handle)["chief-0"]["env"]
    assert (env["MASTER_PORT"], env["RANK"]) == ("4711", ""), "variables of the job file must be kept"
    assert (env["MASTER_ADDR"], env["WORLD_SIZE"], env["LOCAL_RANK"]) == ("127.0.0.1", "1", "0")
    assert 20000 <= int(env["JAX_COORDINATOR_ADDRESS"].split(":")[1]) < 32000, (
        "the port must be reserved by the backend"
    )
    shown = json.loads(env["CLUSTER_SPEC"])
    assert shown["task"] == {"type": "workerpool0", "index": 0}
    (alone,) = shown["cluster"]["workerpool0"]
    assert 20000 <= int(alone.removeprefix("127.0.0.1:")) < 32000, "the port must be reserved by the backend"


@pytest.mark.parametrize("which", ["MASTER_PORT", "DMLC_TRACKER_PORT"])
def test_a_taken_port_of_the_chief_restarts_the_cluster_on_other_ports(
    make_backend: Make, actor: str, bucket: str, which: str
) -> None:
    """Another program binds the port after it was released and before the chief binds it."""
    hold = f"""
    say("port", os.environ["{which}"])
    if not (scratch.parent.parent / "taken").exists():
        (scratch.parent.parent / "taken").touch()
        code = "import socket,sys,time; s=socket.create_server(('127.0.0.1',int(sys.argv[1]))); print(); time.sleep(60)"
        other = subprocess.Popen([sys.executable, "-uc", code, os.environ["{which}"]], stdout=subprocess.PIPE,
                                 start_new_session=True)
        other.stdout.readline()
        sys.exit(1)
    """
    backend = make_backend(max_chief_restarts=0)
    handle, status = local.run(backend, bucket, local.spec(actor, args=local.acts(chief=hold)))
    assert status.state is JobState.SUCCEEDED, local.texts(backend, handle)
    lines = local.texts(backend, handle)
    assert len({text for text in lines if text.startswith("chief-0: port ")}) == 2
    assert any("another program uses port" in text for text in lines)


def test_arguments_are_passed_unchanged_with_the_job_dir_last(make_backend: Make, actor: str, bucket: str) -> None:
    odd = ("--worker", "a b 'c' \"d\" $HOME ; # ü\n*")
    backend = make_backend()
    handle, _ = local.run(backend, bucket, local.spec(actor, args=(*local.acts(chief=PRINT_CLUSTER), *odd)))
    args = seen(backend, handle)["chief-0"]["args"]
    assert args[2:] == [*odd, "--job-dir", handle.job_dir]


def test_a_trainer_without_the_argument_for_the_job_dir_does_not_get_it(
    make_backend: Make, actor: str, bucket: str
) -> None:
    backend = make_backend()
    spec = local.spec(actor, args=local.acts(chief=PRINT_CLUSTER), job_dir_arg="")
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED
    view = seen(backend, handle)["chief-0"]
    assert view["args"] == ["--chief", PRINT_CLUSTER]
    assert view["env"]["AIP_MODEL_DIR"] == f"{handle.job_dir}/model/"


def test_a_single_replica_has_no_tf_config(
    make_backend: Make, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"chief": ["elsewhere:1"]}}')
    backend = make_backend()
    handle, _ = local.run(backend, bucket, local.spec(actor, args=local.acts(chief=PRINT_CLUSTER)))
    assert "TF_CONFIG" not in seen(backend, handle)["chief-0"]["env"]


def test_a_single_replica_can_get_the_tf_config_of_ml_engine(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    spec = local.spec(
        actor, args=local.acts(chief=PRINT_CLUSTER), single_replica_tf_config=True, primary_name="master", region="r"
    )
    handle, _ = local.run(backend, bucket, spec)
    config = seen(backend, handle)["chief-0"]["config"]
    assert config["task"] == {"type": "master", "index": 0}
    assert list(config["cluster"]) == ["master"]
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", *config["cluster"]["master"])
    assert config["job"]["region"] == "r"


@pytest.mark.parametrize("expands", [True, False])
def test_variables_in_arguments_are_expanded_only_in_vertex_ais_format(
    make_backend: Make, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch, expands: bool
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    args = ("--worker", "$(AIP_MODEL_DIR)x", "--ps", "$(OWN)", "--evaluator", "$$(OWN) $(TZ) $(NONE) $5")
    env = {"FIRST": "1", "OWN": "<$(FIRST)$(CLOUD_ML_JOB_ID)>"}
    backend = make_backend()
    spec = local.spec(actor, args=(*local.acts(chief=PRINT_CLUSTER), *args), env=env, expand_variables=expands)
    handle, _ = local.run(backend, bucket, spec)
    view = seen(backend, handle)["chief-0"]
    own = f"<1{handle.job_id}>"
    # TZ is set on this machine, but would not be in a container in the cloud.
    expanded = ["--worker", f"{handle.job_dir}/model/x", "--ps", own, "--evaluator", "$(OWN) $(TZ) $(NONE) $5"]
    assert view["args"][2:-2] == (expanded if expands else list(args))
    assert view["env"]["OWN"] == (own if expands else env["OWN"])


def test_the_environment_of_a_replica_contains_no_secrets(
    make_backend: Make, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:hush@db/airflow",
        "AIRFLOW__CORE__FERNET_KEY": "hush",
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": "hush",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "UV_INDEX_HUSH_PASSWORD": "hush",
    }
    for name, value in {**secrets, "http_proxy": "http://proxy.invalid:3128", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # keep the job's own traffic on this machine
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_PROJECT", "my-project")
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_REGION", "europe-west1")
    spec = local.spec(actor, args=local.acts(chief=PRINT_CLUSTER), env={"TF_CPP_MIN_LOG_LEVEL": "2", "MINE": "yes"})
    backend = make_backend()
    handle, _ = local.run(backend, bucket, spec)
    view = seen(backend, handle)["chief-0"]
    env = view["env"]
    assert "hush" not in json.dumps(env)
    assert not [name for name in env if name.startswith(("AIRFLOW", "UV_", "PYTHONPATH"))]
    folder = handle.job_dir
    expected = {
        "TZ": "UTC",
        "MINE": "yes",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "NO_PROXY": "127.0.0.1,localhost",
        "CLOUD_ML_JOB_ID": handle.job_id,
        "CLOUD_ML_PROJECT_ID": "my-project",
        "CLOUD_ML_REGION": "europe-west1",
        "AIP_MODEL_DIR": f"{folder}/model/",
        "AIP_CHECKPOINT_DIR": f"{folder}/train/",
        "AIP_TENSORBOARD_LOG_DIR": f"{folder}/train/",
        "MLENGINE_ATTEMPT": "1",
        "MLENGINE_SCRATCH": view["cwd"],
    }
    assert {name: env.get(name) for name in expected} == expected
    assert "STORAGE_EMULATOR_HOST" in env
    assert Path(env["MLENGINE_DATA_CACHE"]).is_dir()
    # Nor is the secret in a log, including the launcher's, or in any other file of the job. Scratch folders may be
    # deleted meanwhile.
    for folder, _, names in os.walk(backend._job(handle.name).root):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                assert b"hush" not in path.read_bytes(), path


def test_data_that_no_job_uses_any_more_is_removed_before_a_training(
    make_backend: Make, actor: str, bucket: str
) -> None:
    backend = make_backend(max_concurrent_jobs=2)
    cache, lock = backend.state_dir / "data-cache", backend.state_dir / "locks" / "data-cache.lock"
    spec = local.spec(actor, args=local.acts(chief=f"until({str(backend.state_dir / 'go')!r})"))
    training = backend.submit(local.submission(bucket, spec, key="training"))
    local.until_state(backend, training, JobState.RUNNING)
    assert FileLock.take(lock) is None, "the job keeps all data"
    (cache / "old").touch()
    for path in (lock, cache / "old"):
        os.utime(path, (0, 0))
    local.run(backend, bucket, local.spec(actor), key="second")
    assert (cache / "old").exists(), "a job trains"
    (backend.state_dir / "go").touch()
    local.until_ended(backend, training)
    handle, _ = local.run(backend, bucket, local.spec(actor), key="third")
    assert not (cache / "old").exists()
    removed = f"launcher: removed 1 item from {cache}, 0 MiB: not used for 30 days"
    assert removed in local.texts(backend, handle)


def test_logs_and_package_versions_are_uploaded(make_backend: Make, actor: str, storage: Storage, bucket: str) -> None:
    backend = make_backend(log_upload_timeout_seconds=60)
    spec = local.spec(actor, worker=1, args=local.acts(chief="say('the last line of the chief')"))
    handle, _ = local.run(backend, bucket, spec)
    local.until(lambda: storage.exists(f"{handle.job_dir}/logs/attempt-1/worker-0.log"), "the upload")
    folder = f"{handle.job_dir}/logs/attempt-1"
    assert b"the last line of the chief" in storage.read(f"{folder}/chief-0.log")
    assert b"worker-0 restart 0" in storage.read(f"{folder}/worker-0.log")
    assert b"SUCCEEDED" in storage.read(f"{folder}/launcher.log")
    assert storage.read(f"{handle.job_dir}/logs/environment.txt") == b"tiny==1.0\n"


WRITE = """
import urllib.parse, urllib.request
bucket, _, folder = args.job_dir.removeprefix("gs://").partition("/")
name = urllib.parse.quote(f"{folder}/model/weights", safe="")
url = f"{os.environ['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(urllib.request.Request(url, b"w"))
"""


def test_a_chief_that_succeeds_immediately_without_output_is_reported(
    make_backend: Make, actor: str, storage: Storage, bucket: str
) -> None:
    backend = make_backend(empty_output_warning_seconds=30)
    spec = local.spec(actor, worker=1, single_replica_tf_config=True, primary_name="master")
    storage.write(f"{bucket}/m/job_{'k' * 8}/model/.keep", b"")
    handle, status = local.run(backend, bucket, spec)
    assert status.state is JobState.SUCCEEDED, "the exit code decides"
    warning = r"the chief ended with exit code 0 after [0-9.]+ s, but wrote nothing below model/ or train/; TF_CONFIG "
    assert re.fullmatch(warning + 'calls it "master": .* useChiefInTfConfig', status.detail)
    assert f"launcher: {status.detail}" in local.texts(backend, handle)
    _, wrote = local.run(backend, bucket, replace(spec, args=local.acts(chief=WRITE)), key="w" * 40)
    assert wrote.detail == "the chief ended with exit code 0"
    _, slow = local.run(make_backend(empty_output_warning_seconds=0.001), bucket, spec, key="s" * 40)
    assert slow.detail == "the chief ended with exit code 0", (
        "there must be no warning if the chief ran longer than the limit"
    )


def test_a_failed_log_upload_does_not_fail_the_job(
    make_backend: Make, actor: str, storage: Storage, bucket: str
) -> None:
    backend = make_backend(log_upload_timeout_seconds=60)
    job = local.submission(bucket, local.spec(actor))
    gone = type(job)(job.key, job.job_id, 1, "gs://no-such-bucket-here/m/job", job.spec)
    assert local.until_ended(backend, backend.submit(gone)).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (TrainingSpec(module="tiny.task"), "no package contains"),
        (TrainingSpec(module="tiny.task", package_uris=("gs://bbb/p",), pools=()), "one chief"),
    ],
)
def test_an_invalid_spec_is_refused_at_submission(
    make_backend: Make, bucket: str, spec: TrainingSpec, word: str
) -> None:
    backend = make_backend()
    with pytest.raises(BackendError, match=word):
        backend.submit(local.submission(bucket, spec))
    assert backend.jobs() == []


def test_an_unknown_job_is_lost(make_backend: Make) -> None:
    backend = make_backend()
    unknown = JobHandle("local", "unknown-1", "job", 1, "gs://bbb/m/job")
    assert backend.logs(unknown, {}).lines == ()
    assert backend.console_url(unknown) is None
    assert backend.find("unknown") == []
    status = local.describe(backend, unknown)
    # Polling an unknown job creates no files.
    assert not (backend.state_dir / "jobs").exists()
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST


def test_stderr_is_stored_separately_if_configured(make_backend: Make, actor: str, bucket: str) -> None:
    do = "say('out'); sys.stderr.write('no end of line'); sys.exit(1 if restarts else 75)"
    spec = local.spec(actor, args=local.acts(chief=do))
    backend = make_backend(max_chief_restarts=1)
    backend.separate_stderr()
    handle, status = local.run(backend, bucket, spec)
    lines = [(line.text, line.stderr) for line in local.lines(backend, handle) if line.replica == "chief-0"]
    assert sorted(line for line in lines if line[1]) == [("no end of line", True)] * 2
    assert ("out", False) in lines
    assert status.failure is not None
    assert status.failure.log_tail[-1] == "no end of line"
