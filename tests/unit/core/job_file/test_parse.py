"""The job file: accepted and rejected content, and the position that an error names."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mlengine.core.errors import JobFileError
from mlengine.core.job_file import parse
from mlengine.core.job_file.located import from_python
from mlengine.core.spec import Pool, Role, TrainingSpec

ARTICLE = """\
trainingInput:
  scaleTier: CUSTOM
  masterType: standard
  workerType: n1-standard-4
  workerCount: "2"
  parameterServerType: large_model
  parameterServerCount: 1
  region: us-central1
  runtimeVersion: 2.10
  pythonVersion: '3.7'
  pythonModule: trainer.task
  packageUris:
  - gs://bucket/packages/trainer-0.0.0.tar.gz
  jobDir: gs://bucket/mnist/1
  args: [--max_steps, "3000", --verbose]
  network: projects/1/global/networks/default
  scheduling: {maxRunningTime: 7200s, maxWaitTime: 3600.5s}
labels: {team: vision}
"""


def test_every_field_of_a_training_input_is_in_the_spec() -> None:
    spec = parse.load(ARTICLE)
    assert spec == TrainingSpec(
        module="trainer.task",
        package_uris=("gs://bucket/packages/trainer-0.0.0.tar.gz",),
        args=("--max_steps", "3000", "--verbose"),
        pools=(
            Pool(Role.CHIEF, 1, "standard"),
            Pool(Role.WORKER, 2, "n1-standard-4"),
            Pool(Role.PS, 1, "large_model"),
        ),
        single_replica_tf_config=True,
        scale_tier="CUSTOM",
        region="us-central1",
        job_dir="gs://bucket/mnist/1",
        runtime_version="2.10",
        python_version="3.7",
        max_running_seconds=7200,
        max_wait_seconds=3601,
        labels={"team": "vision"},
        source=spec.source,
    )
    assert spec.source["network"] == "projects/1/global/networks/default"
    assert spec.source["runtimeVersion"] == "2.10", "the YAML number 2.1 must not become another version"
    assert "labels" not in spec.source
    assert parse.check(spec) is spec


def test_a_path_a_string_and_plain_data_give_the_same_spec(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ARTICLE)
    text = parse.load(ARTICLE)
    assert parse.load(path) == parse.load(str(path)) == text
    plain = yaml.safe_load(ARTICLE)
    plain["trainingInput"]["runtimeVersion"] = "2.10"
    assert parse.load(plain) == text
    assert parse.load(json.dumps(plain)) == text


@pytest.mark.parametrize(
    ("tier", "counts"),
    [
        ("BASIC", (1, 0, 0)),
        ("STANDARD_1", (1, 4, 3)),
        ("PREMIUM_1", (1, 19, 11)),
        ("BASIC_GPU", (1, 0, 0)),
        ("BASIC_TPU", (1, 0, 0)),
    ],
)
def test_each_tier_has_its_cluster(tier: str, counts: tuple[int, ...]) -> None:
    spec = parse.load({"trainingInput": {"scaleTier": tier, "pythonModule": "t.task"}})
    assert tuple(spec.count(role) for role in (Role.CHIEF, Role.WORKER, Role.PS)) == counts
    assert spec.scale_tier == tier


def test_without_a_tier_the_tier_is_basic() -> None:
    assert parse.load("trainingInput: {pythonModule: t.task}").scale_tier == "BASIC"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "master"),
        ({"scaleTier": "STANDARD_1"}, "master"),
        ({"useChiefInTfConfig": True}, "chief"),
        ({"useChiefInTfConfig": False}, "master"),
        ({"runtimeVersion": "2.11", "useChiefInTfConfig": False}, "master"),
        ({"masterConfig": {"imageUri": "python:3.11"}, "useChiefInTfConfig": False}, "master"),
        ({"runtimeVersion": "1.15"}, "master"),
        ({"runtimeVersion": "2.0"}, "master"),
        ({"runtimeVersion": "2.1"}, "chief"),
        ({"runtimeVersion": "2.10"}, "chief"),
        ({"runtimeVersion": "10.0"}, "chief"),
        ({"runtimeVersion": "1.15", "useChiefInTfConfig": True}, "chief"),
        ({"masterConfig": {"imageUri": "python:3.11"}}, "master"),
        ({"masterConfig": {"imageUri": "python:3.11"}, "useChiefInTfConfig": True}, "chief"),
    ],
)
def test_the_name_of_the_chief_in_tf_config(fields: dict[str, Any], name: str) -> None:
    assert parse.load({"trainingInput": fields}).primary_name == name


def test_images_and_accelerators_are_read() -> None:
    spec = parse.load("""
trainingInput:
  scaleTier: CUSTOM
  masterType: n1-standard-8
  masterConfig:
    imageUri: europe-docker.pkg.dev/p/r/trainer:1
    acceleratorConfig: {type: NVIDIA_TESLA_T4, count: '2'}
  workerType: n1-standard-8
  workerCount: 2
  evaluatorType: standard
  evaluatorCount: 1
""")
    chief, worker, evaluator = spec.pools
    assert (chief.accelerator_type, chief.accelerator_count) == ("NVIDIA_TESLA_T4", 2)
    assert worker.image_uri == chief.image_uri, "a role without an image must run the chief's"
    assert worker.accelerator_type is None
    assert evaluator.role is Role.EVALUATOR
    assert parse.check(spec).module == ""


def changed(old: str, new: str) -> str:
    assert old in ARTICLE
    return ARTICLE.replace(old, new)


BAD = {
    "an unknown field": (changed("workerCount", "workerCuont"), 5, "workerCuont", "workerCount"),
    "an unknown field in a config": (changed("maxRunningTime", "maxRuntime"), 17, "maxRuntime", "maxRunningTime"),
    "an unknown tier": (changed("CUSTOM", "STANDART_1"), 2, "STANDART_1", "STANDARD_1"),
    "custom without a master type": (changed("  masterType: standard\n", ""), 2, "no masterType", "masterType:"),
    "counts without custom": (changed("CUSTOM", "STANDARD_1"), 3, "only for scaleTier: CUSTOM", "scaleTier: CUSTOM"),
    "a count without a type": (changed("  workerType: n1-standard-4\n", ""), 4, "no workerType", "workerType:"),
    "a count below zero": (changed('"2"', "-1"), 5, "-1", "0 to 1000"),
    "a count that is too large": (changed('"2"', "20000"), 5, "20000", "1000"),
    "a count as a word": (changed('"2"', "two"), 5, "must be an integer", "2"),
    "a fractional count": (changed('"2"', "1.5"), 5, "must be an integer", "2"),
    "a boolean count": (changed('"2"', "yes"), 5, "must be an integer", "2"),
    "a number among the args": (changed('"3000"', "3000"), 15, "args[1]", '"3000"'),
    "args as one string": (
        changed('[--max_steps, "3000", --verbose]', "--max_steps=3"),
        15,
        "must be a list",
        "- item",
    ),
    "an unknown machine type": (changed("large_model", "larg_model"), 6, "larg_model", "large_model"),
    "a file as a module": (changed("trainer.task", "trainer/task.py"), 11, "a path", "trainer.task"),
    "no module at all": (changed("trainer.task", "train-er"), 11, "not a module", "trainer.task"),
    "a package on this machine": (changed("gs://bucket/packages", "./dist"), 13, "not a Cloud", "PackageTrainerOper"),
    "a job dir on this machine": (changed("gs://bucket/mnist/1", "/tmp/out"), 14, "not a Cloud", "gs://"),
    "a bucket for a job dir": (
        changed("gs://bucket/mnist/1", "gs://bucket/"),
        14,
        "bucket without a path",
        "gs://BUCKET/path",
    ),
    "a duration in hours": (changed("7200s", "2h"), 17, "not a duration", '"7200s"'),
    "a duration without unit": (changed("7200s", "7200"), 17, "not a duration", '"7200s"'),
    "a time that is too long": (changed("7200s", "9999999999999s"), 17, "9999999999999", "315576000000"),
    "a time of zero": (changed("7200s", "0s"), 17, "no time", "7200s"),
    "too short a wait": (changed("3600.5s", "60s"), 17, "60s", "1800s"),
    "a label in capitals": (changed("vision", "Vision"), 18, "not a label", "a-z"),
    "a key written twice": (changed("  region", "  workerCount: 3\n  region"), 8, "twice", "keep one"),
    "one field in two spellings": (changed("  region", "  worker_count: 3\n  region"), 8, "twice", "keep one"),
    "a tab": (changed("  region", "\tregion"), 8, "not YAML", "spaces"),
    "a broken line": (changed("region: us", "region: us: x"), 8, "not YAML", "colons"),
    "hyperparameters": (
        changed("  region", "  hyperparameters: {goal: MINIMIZE}\n  region"),
        8,
        "not supported",
        "fixed",
    ),
    "a python object tag": (changed("us-central1", "!!python/name:os.getcwd ''"), 8, "not YAML", "tags"),
    "a list in place of a string": (changed("us-central1", "[a]"), 8, "must be a string", "string"),
    "an invalid version": (changed("2.10", "latest"), 9, "not a version", "2.11"),
    "a job without fields": ("jobId: x\n", 1, "neither", "trainingInput"),
    "a field with wrong indentation": ("scaleTier: BASIC\n", 1, "top of the file", "indent"),
    "labels in the training input": ("trainingInput:\n  region: r\n  labels: {a: b}\n", 3, "labels", "same level"),
    "a job id in the training input": ("trainingInput:\n  job_id: x\n", 2, "job_id", "same level as 'trainingInput:'"),
    "labels in the job spec": (
        "jobSpec:\n  labels: {a: b}\n  workerPoolSpecs: []\n",
        *(2, "is not a field of jobSpec", "write 'labels:' at the same level as 'jobSpec:'"),
    ),
    "a list": ("- trainingInput:\n", 1, "must be a mapping", "field: value"),
    "two jobs": ("trainingInput: {}\n---\ntrainingInput: {}\n", 2, "single document", "one job"),
    "an invalid job id": ("jobId: a-b\ntrainingInput: {}\n", 1, "job id", "letters"),
    "a recursive alias": ("trainingInput: &a\n  args: [*a]\n", 1, "refers to itself", "without"),
    "an undefined alias": ("trainingInput:\n  region: *here\n", 2, "undefined alias", "quote"),
    "an accelerator alone": (
        "trainingInput:\n  masterConfig:\n    acceleratorConfig: {count: 1}\n",
        3,
        "alone",
        "both",
    ),
    "an accelerator misspelt": (
        "trainingInput:\n  masterConfig:\n    acceleratorConfig: {count: 1, type: TESLA_T4}\n",
        *(3, "TESLA_T4", "NVIDIA_TESLA_T4"),
    ),
    "an image and a runtime": (
        "trainingInput:\n  runtimeVersion: '2.1'\n  masterConfig: {imageUri: python}\n",
        *(2, "as well as an image", "keep one"),
    ),
}


@pytest.mark.parametrize(("text", "line", "what", "hint"), BAD.values(), ids=BAD)
def test_a_bad_job_file_is_refused_with_line_and_hint(text: str, line: int, what: str, hint: str) -> None:
    with pytest.raises(JobFileError) as caught:
        parse.load(text, name="config.yaml")
    message, _, advice = str(caught.value).partition("What to do: ")
    assert message.startswith(f"config.yaml:{line}: ")
    assert what in message
    assert hint in advice


def test_the_hint_lists_all_fields_once_if_none_is_similar() -> None:
    with pytest.raises(JobFileError) as caught:
        parse.load("trainingInput: {zzz: 1}")
    named = caught.value.hint.removeprefix("use one of: ").split(", ")
    assert named == sorted(set(named))
    assert "workerCount" in named
    assert "worker_count" not in named


def test_json_is_read_as_json_with_tabs_and_escapes(tmp_path: Path) -> None:
    data = yaml.safe_load(ARTICLE)
    data["trainingInput"]["runtimeVersion"] = "2.10"
    data["labels"]["note"] = "\u00fc"
    text = json.dumps(data, indent="\t").replace("/", "\\/")
    assert parse.load(text) == parse.load(data)
    path = tmp_path / "job.json"
    path.write_text("\ufeff\n" + text)
    assert parse.load(path) == parse.load(data)
    line = 1 + next(number for number, one in enumerate(text.splitlines(), 1) if "workerCount" in one)
    path.write_text("\n" + text.replace("workerCount", "workerCuont"))
    with pytest.raises(JobFileError, match=rf"job\.json:{line}: trainingInput\.workerCuont: .*"):
        parse.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{\n\t"trainingInput": {\n\t\t"region": "r"\n\t\t"args": []\n\t}\n}',
            "f:4: not JSON: Expecting ',' delimiter",
        ),
        ('{"trainingInput": {},\n"trainingInput": {}}', "f:2: trainingInput: is written twice, at f:1 too"),
        ('{"trainingInput": ' + "[" * 100_000, "f: nested too deep"),
        (
            '{"trainingInput":\n{"args": ["--x", 3]}}',
            "f:2: trainingInput.args[1]: an argument must be a string, not int 3",
        ),
        ("{trainingInput: {region: 5}}", "f:1: trainingInput.region: must be a string"),
        ("{a: [}", "f:1: not YAML"),
    ],
)
def test_wrong_json_is_reported_with_its_line(text: str, message: str) -> None:
    with pytest.raises(JobFileError, match=f"^{re.escape(message)}"):
        parse.load(text, name="f")


def test_json_with_trailing_commas_is_read_as_yaml() -> None:
    assert parse.load('{"trainingInput": {"region": "r",},  # a comment\n}').region == "r"


def test_huge_files_and_alias_bombs_are_refused_quickly() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    with pytest.raises(JobFileError, match=r"^job file: a[0-9]+: more than 20000 fields, counting what aliases repeat"):
        parse.load(bomb)
    with pytest.raises(JobFileError, match="characters long"):
        parse.load("# " + "x" * 2_000_000 + "\n")
    with pytest.raises(JobFileError, match="empty"):
        parse.load("# nothing here yet\n")
    with pytest.raises(JobFileError, match="empty"):
        parse.load("")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"no\.yaml: the job file cannot be read"):
        parse.load(str(tmp_path / "no.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"trainingInput: {region: \xe9}")
    with pytest.raises(JobFileError, match="UTF-8"):
        parse.load(tmp_path / "latin.yaml")


def test_yaml_anchors_and_merge_keys_are_supported() -> None:
    spec = parse.load("""
trainingInput:
  <<: &shape {scaleTier: CUSTOM, masterType: standard, workerType: standard, workerCount: 9}
  workerCount: 1
  args: &args [--a]
""")
    assert spec.count(Role.WORKER) == 1
    assert spec.args == ("--a",)


VERTEX = """\
displayName: mnist
jobSpec:
  workerPoolSpecs:
  - machineSpec: {machineType: n1-standard-4}
    replicaCount: 1
    pythonPackageSpec: &package
      executorImageUri: europe-docker.pkg.dev/x/y:1
      packageUris: [gs://bkt/t-1.tar.gz]
      pythonModule: trainer.task
      args: [--a, b]
      env: [{name: X, value: '1'}]
  - {}
  - machine_spec: {machine_type: n1-highmem-8, acceleratorType: NVIDIA_L4, acceleratorCount: '1'}
    replica_count: '2'
    pythonPackageSpec: *package
  scheduling: {timeout: 600s, maxWaitDuration: 0s, strategy: SPOT}
  baseOutputDirectory: {outputUriPrefix: gs://bkt/out}
labels: {a: b}
"""


def test_vertex_pools_are_mapped_to_roles_by_their_order() -> None:
    spec = parse.load(VERTEX)
    image = "europe-docker.pkg.dev/x/y:1"
    assert spec == TrainingSpec(
        module="trainer.task",
        package_uris=("gs://bkt/t-1.tar.gz",),
        args=("--a", "b"),
        pools=(
            Pool(Role.CHIEF, 1, "n1-standard-4", image_uri=image),
            Pool(Role.PS, 2, "n1-highmem-8", "NVIDIA_L4", 1, image),
        ),
        job_dir="gs://bkt/out",
        max_running_seconds=600,
        labels={"a": "b"},
        env={"X": "1"},
        expand_variables=True,
        source=spec.source,
    )
    assert (spec.primary_name, spec.single_replica_tf_config) == ("chief", False), (
        "the field must be sent in the service's form"
    )
    bare = yaml.safe_load(VERTEX)["jobSpec"]
    assert replace(parse.load(bare), source={}, labels={}) == replace(spec, source={}, labels={})


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("replicaCount: 1", "replicaCount: 2", 4, "first pool is the chief"),
        ("machineType: n1-standard-4", "", 4, "no machineType"),
        ("pythonModule", "pythonModul", 9, "unknown field"),
        ("    pythonPackageSpec: *package\n", "", 13, "either"),
        ("pythonPackageSpec: *package", "containerSpec: {imageUri: x, args: [--c]}", 13, "pythonModule differs"),
        ("  workerPoolSpecs:", "  workerPools:", 3, "unknown field"),
        ("displayName: mnist", "trainingInput: {}", 1, "with Vertex"),
        ("name: X,", "name: 'X Y',", 11, "variable"),
    ],
)
def test_a_bad_vertex_job_is_refused_with_its_line(old: str, new: str, line: int, what: str) -> None:
    assert old in VERTEX
    with pytest.raises(JobFileError, match=rf"^f:{line}: .*{what}"):
        parse.load(VERTEX.replace(old, new), name="f")


def test_a_given_value_replaces_the_whole_field() -> None:
    spec = parse.load(ARTICLE)
    given_ = parse.override(
        spec, args=["--x"], module="other.task", region="europe-west1", package_uris=["gs://bkt/o-1.zip"]
    )
    assert (given_.args, given_.module, given_.region) == (("--x",), "other.task", "europe-west1")
    assert given_.package_uris == ("gs://bkt/o-1.zip",)
    assert given_.source["args"] == ["--x"]
    assert given_.pools == spec.pools
    assert parse.override(spec, args=[]).args == ()
    assert parse.override(spec) == spec


def test_a_given_tier_replaces_the_cluster() -> None:
    spec = parse.override(parse.load(ARTICLE), scale_tier="STANDARD_1")
    assert spec.count(Role.WORKER) == 4
    assert "masterType" not in spec.source
    assert spec.source["scaleTier"] == "STANDARD_1"
    assert parse.load({"trainingInput": dict(spec.source)}).pools == spec.pools


def test_given_counts_make_a_tier_custom() -> None:
    spec = parse.load({"trainingInput": {"scaleTier": "STANDARD_1", "pythonModule": "t.task"}})
    small = parse.override(spec, counts={Role.WORKER: 2, Role.PS: 0, Role.EVALUATOR: 1})
    assert [(pool.role, pool.count) for pool in small.pools] == [
        (Role.CHIEF, 1),
        (Role.WORKER, 2),
        (Role.EVALUATOR, 1),
    ]
    assert small.pools[2].machine_type == "n1-highcpu-8", "a new role must get the chief's machine"
    assert parse.load({"trainingInput": dict(small.source)}).pools == small.pools


IDLE = """
trainingInput:
  scaleTier: CUSTOM
  masterType: n1-standard-4
  masterConfig: {imageUri: example/chief}
  workerType: n1-highmem-8
  workerCount: 0
  workerConfig: {imageUri: example/worker, acceleratorConfig: {type: NVIDIA_TESLA_T4, count: 1}}
"""
IDLE_POOLS = """
job_spec:
  worker_pool_specs:
  - {machineSpec: {machineType: n1-standard-4}, replicaCount: 1, containerSpec: {imageUri: example/chief}}
  - machineSpec: {machineType: n1-highmem-8, acceleratorType: NVIDIA_TESLA_T4, acceleratorCount: 1}
    replicaCount: 0
    containerSpec: {imageUri: example/worker}
"""


@pytest.mark.parametrize("text", [IDLE, IDLE.replace("  workerCount: 0\n", ""), IDLE_POOLS])
def test_a_role_without_replicas_keeps_its_machine_when_it_gets_some(text: str) -> None:
    spec = parse.load(text)
    assert [pool.role for pool in spec.pools] == [Role.CHIEF]
    changed = parse.override(spec, counts={Role.WORKER: 3, Role.PS: 1})
    worker = Pool(Role.WORKER, 3, "n1-highmem-8", "NVIDIA_TESLA_T4", 1, "example/worker")
    assert changed.pools == (spec.pools[0], worker, Pool(Role.PS, 1, "n1-standard-4", image_uri="example/chief"))
    assert parse.override(spec, counts={Role.PS: 0}).pools == spec.pools


def test_a_tier_has_its_own_machines_for_a_role_without_replicas() -> None:
    changed = parse.override(parse.load(IDLE), scale_tier="BASIC", counts={Role.WORKER: 1})
    assert changed.pools[1] == Pool(Role.WORKER, 1, "n1-standard-4", image_uri="example/worker")


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": [1]},
        {"scale_tier": "HUGE"},
        {"counts": {Role.WORKER: -1}},
        {"counts": {Role.CHIEF: 2}},
        {"package_uris": ["trainer.tar.gz"]},
        {"module": "a b"},
    ],
)
def test_given_values_are_checked_like_those_of_a_file(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobFileError):
        parse.override(parse.load(ARTICLE), **wrong)


def test_a_job_without_a_module_is_refused_once_it_is_complete() -> None:
    spec = parse.load("trainingInput: {region: r}")
    with pytest.raises(JobFileError, match="no module"):
        parse.override(spec, region="q")
    assert parse.override(spec, module="t.task").module == "t.task"


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=30)


@st.composite
def training_inputs(draw: st.DrawFn) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "pythonModule": f"{draw(names)}_.{draw(names)}_",
        "args": draw(st.lists(texts, max_size=5)),
    }
    if draw(st.booleans()):
        fields |= {"scaleTier": "CUSTOM", "masterType": "standard"}
        for role in ("worker", "parameterServer", "evaluator"):
            if draw(st.booleans()):
                count = draw(st.integers(0, 1000))
                fields |= {f"{role}Type": "n1-standard-4", f"{role}Count": draw(st.sampled_from([count, str(count)]))}
    else:
        fields["scaleTier"] = draw(st.sampled_from(["BASIC", "STANDARD_1", "PREMIUM_1", "BASIC_GPU", "BASIC_TPU"]))
    if draw(st.booleans()):
        fields["scheduling"] = {"maxRunningTime": f"{draw(st.integers(1, 10**6))}s"}
    return fields


@given(training_inputs(), st.dictionaries(names, names, max_size=3))
def test_a_spec_survives_a_round_trip(fields: dict[str, Any], labels: dict[str, str]) -> None:
    """A job file gives the same spec as data, YAML and JSON, and the spec survives a round trip.

    The round trip is through the spec's JSON, and through a job file with the spec's source.
    """
    job = {"trainingInput": fields, "labels": labels}
    spec = parse.load(job)
    assert parse.load(yaml.safe_dump(job, allow_unicode=True)) == spec
    assert parse.load(json.dumps(job, indent="\t")) == spec
    assert TrainingSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert parse.load({"trainingInput": dict(spec.source), "labels": dict(spec.labels)}) == spec
    assert sum(pool.count for pool in spec.pools) == len(spec.replicas)


@given(st.text(max_size=200))
@example("\x1f")
@example("[" * 900)
def test_any_text_is_parsed_or_raises_a_job_file_error(text: str) -> None:
    with suppress(JobFileError):
        parse.load(f"trainingInput:\n  {text}")


DOCS = Path(__file__).parents[4] / "docs" / "job-file.md"


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL))
def test_the_examples_in_the_docs_are_valid_job_files(example: str) -> None:
    spec = parse.load(example)
    assert (spec.module, spec.count(Role.WORKER)) == ("trainer.task", 2)


CONTAINER = """\
trainingInput:
  scaleTier: CUSTOM
  masterType: n1-standard-4
  masterConfig:
    imageUri: gcr.io/p/t:1
    containerArgs: [--epochs, "5"]
"""
POOLS = """\
workerPoolSpecs:
- machineSpec: {machineType: n1-standard-4}
  pythonPackageSpec: {pythonModule: t.task}
"""


def test_the_args_of_the_chiefs_container_become_those_of_the_spec() -> None:
    spec = parse.load(CONTAINER)
    assert spec.args == ("--epochs", "5")
    assert parse.override(spec, args=["--x"]).args == ("--x",)
    given = {"args": from_python(["--x"], "the command line", "args")}
    assert parse.load(CONTAINER, given=given).args == ("--x",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CONTAINER + "  args: [--x]\n", "masterConfig.containerArgs: is given as well as args"),
        (CONTAINER.replace("    imageUri: gcr.io/p/t:1\n", ""), "containerArgs: is given without an image"),
        (CONTAINER + "    containerCommand: python -m x\n", "containerCommand: must be a list"),
        (CONTAINER + "    diskConfig: {bootDiskSize: 500}\n", "did you mean bootDiskSizeGb"),
        (CONTAINER + "    diskConfig: {bootDiskSizeGb: 100GB}\n", "bootDiskSizeGb: must be an integer"),
        (CONTAINER + "    diskConfig: 100\n", "diskConfig: must be a mapping"),
        (CONTAINER + "  encryptionConfig: projects/p\n", "encryptionConfig: must be a mapping"),
        (CONTAINER + "  serviceAccount: [a@b]\n", "serviceAccount: must be a string"),
        (CONTAINER + "  enableWebAccess: 'false'\n", "enableWebAccess: must be true or false"),
        (CONTAINER + "  network: 5\n", "network: must be a string"),
        (CONTAINER + "  scheduling: {strategy: BOGUS}\n", "strategy: is not a strategy"),
        (CONTAINER + "  scheduling: {resilientToWorkerRestart: 17}\n", "must be true or false"),
        (POOLS + "scheduling: {strategy: [SPOT]}\n", "strategy: must be a string"),
        (POOLS + "  diskSpec: 100\n", "diskSpec: must be a mapping"),
        (POOLS + "serviceAccount: 5\n", "serviceAccount: must be a string"),
        (POOLS + "reservedIpRanges: all\n", "reservedIpRanges: must be a list"),
    ],
)
def test_fields_passed_to_the_service_have_the_right_types(text: str, message: str) -> None:
    with pytest.raises(JobFileError, match=r"job file:\d+: ") as caught:
        parse.load(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("ACCELERATOR_TYPE_UNSPECIFIED", 0, (None, 0)),
        ("TPU_V2_POD", 32, ("TPU_V2", 32)),
        ("NVIDIA_TESLA_T4", 1, ("NVIDIA_TESLA_T4", 1)),
    ],
)
def test_ml_engines_accelerator_names_are_translated(kind: str, count: int, expected: tuple[str | None, int]) -> None:
    (chief,) = parse.load(f"{CONTAINER}    acceleratorConfig: {{type: {kind}, count: {count}}}\n").pools
    assert (chief.accelerator_type, chief.accelerator_count) == expected
