"""The start of a replica of another client's job, its Python version, and the package of the adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from mlengine.emulator import replica
from mlengine.emulator.adapter import _LOCAL_ONLY, MODULE, wheel
from mlengine.runtime.rendezvous import rendezvous_variables

DOCUMENTED = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")  # by AI Platform Training, for PyTorch
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


def start(plan: dict[str, Any], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, replica.__file__, json.dumps(plan), "--job-dir", "gs://added/by/launcher"],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def run(plan: dict[str, Any], tf_config: dict[str, Any] | None = None) -> tuple[list[str], dict[str, str]]:
    env = {"AIP_MODEL_DIR": "launcher's", "AIP_CHECKPOINT_DIR": "launcher's"}
    if tf_config:
        env["TF_CONFIG"] = json.dumps(tf_config)
    done = start(plan, env)
    args, environment = json.loads(done.stdout)
    return args, environment


def plan(api: str = "vertex", **more: Any) -> dict[str, Any]:
    env = [{"name": "WHERE", "value": "$(AIP_MODEL_DIR)x"}]
    command = ["python3", "-c", SHOW, "--out=$(AIP_MODEL_DIR)", "$(NO_SUCH)", "$$(WHERE)"]
    pools = {"chief": {"command": command, "env": env}, "worker": {"command": ["python", "-c", SHOW, "w"], "env": []}}
    return {"api": api, "pools": pools, "dirs": {"MODEL": "gs://bkt/model/"}, "job": {"a": 1}, **more}


def container(*command: str, **env: str) -> dict[str, Any]:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return plan(pools={"chief": {"command": list(command), "env": variables}}, dirs={})


def test_a_vertex_ai_job_gets_its_own_command_and_variables() -> None:
    args, env = run(plan())
    assert args == ["--out=gs://bkt/model/", "$(NO_SUCH)", "$(WHERE)"]
    assert env["WHERE"] == "gs://bkt/model/x"
    assert "AIP_CHECKPOINT_DIR" not in env
    spec = json.loads(env["CLUSTER_SPEC"])
    assert spec["task"] == {"type": "workerpool0", "index": 0}
    assert spec["job"] == {"a": 1}, "the cluster spec must be a dictionary, as documented"


def test_each_pool_runs_its_own_command() -> None:
    config = {"cluster": {"chief": ["c:1"], "worker": ["w:1", "w:2"]}, "task": {"type": "worker", "index": 1}}
    args, env = run(plan(), config)
    assert args == ["w"]
    spec = json.loads(env["CLUSTER_SPEC"])
    assert spec["cluster"] == {"workerpool0": ["c:1"], "workerpool1": ["w:1", "w:2"]}
    assert spec["task"] == {"type": "workerpool1", "index": 1}


def test_evaluators_are_only_in_the_cluster_spec() -> None:
    """On Vertex AI, TF_CONFIG has no evaluators, and CLUSTER_SPEC has them as workerpool3."""
    config = {"cluster": {"chief": ["c:1"]}, "task": {"type": "evaluator", "index": 0}}
    pools = {"evaluator": {"command": ["python3", "-c", SHOW], "env": []}}
    _, env = run(plan(pools=pools, evaluators=1), config)
    spec = json.loads(env["CLUSTER_SPEC"])
    assert sorted(spec["cluster"]) == ["workerpool0", "workerpool3"]
    assert spec["task"] == {"type": "workerpool3", "index": 0}
    assert "evaluator" not in json.loads(env["TF_CONFIG"])["cluster"]


def test_an_ml_engine_job_gets_no_variables_of_vertex_ai() -> None:
    config = {"cluster": {"master": ["c:1"]}, "task": {"type": "master", "index": 0}}
    _, env = run(plan("mlengine", dirs={}), config)
    assert not [name for name in env if name.startswith("AIP_") or name == "CLUSTER_SPEC"]


@pytest.mark.parametrize(("api", "kept"), [("vertex", set()), ("mlengine", set(DOCUMENTED))])
def test_a_job_finds_its_cluster_only_by_the_variables_that_the_service_sets(api: str, kept: set[str]) -> None:
    launchers = dict.fromkeys(rendezvous_variables({}), "1")
    done = start(plan(api, unset=_LOCAL_ONLY[api], dirs={}), launchers)
    _, env = json.loads(done.stdout)
    assert set(env) & set(launchers) == kept
    own = plan(api, unset=_LOCAL_ONLY[api], dirs={})
    own["pools"]["chief"]["env"].append({"name": "RANK", "value": "7"})
    assert json.loads(start(own, launchers).stdout)[1]["RANK"] == "7", "variables of the job must be kept"


def test_a_command_that_cannot_run_is_an_error() -> None:
    done = start(container("/no/such/program"), {})
    assert done.returncode == 127
    assert "cannot run /no/such/program" in done.stderr


def test_the_wheel_is_reproducible_and_contains_the_module() -> None:
    wheel.cache_clear()
    first = wheel()
    wheel.cache_clear()
    assert wheel() == first
    with zipfile.ZipFile(BytesIO(first)) as archive:
        assert archive.read(f"{MODULE}.py") == Path(replica.__file__).read_bytes()
        record = archive.read(f"{MODULE}-1.dist-info/RECORD").decode()
    assert f"{MODULE}.py,sha256=" in record
