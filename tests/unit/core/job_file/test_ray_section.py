"""The section ``ray:`` of a job file."""

from __future__ import annotations

import json

import pytest

from mlengine.core.errors import JobFileError
from mlengine.core.job_file.parse import load
from mlengine.core.spec import TrainingSpec

TRAINING = "trainingInput:\n  pythonModule: trainer.task\n"
POOLS = """\
workerPoolSpecs:
- machineSpec: {machineType: n1-standard-4}
  pythonPackageSpec: {executorImageUri: "python:3.11", packageUris: [gs://bucket/t.tar.gz], pythonModule: trainer.task}
"""
RAY = """\
ray:
  placement: SPREAD
  resources:
    master: {CPU: 4, GPU: 0.5, memory_gib: 1.5}
    worker: {CPU: 8, my_resource: 1}
"""


@pytest.mark.parametrize("text", [TRAINING, POOLS])
def test_both_formats_can_have_a_ray_section(text: str) -> None:
    spec = load(text + RAY)
    assert spec.ray == {
        "placement": "SPREAD",
        "resources": {
            "chief": {"CPU": 4, "GPU": 0.5, "memory_gib": 1.5},
            "worker": {"CPU": 8, "my_resource": 1},
        },
    }
    assert "ray" not in spec.source, "the ray section must not be sent to the services"
    assert TrainingSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_request_body_with_a_job_spec_can_have_a_ray_section() -> None:
    indented = "".join(f"  {line}\n" for line in POOLS.splitlines())
    assert load(f"jobSpec:\n{indented}{RAY}").ray["placement"] == "SPREAD"


def test_one_set_of_resources_applies_to_all_roles() -> None:
    assert load(TRAINING + "ray: {resources: {CPU: 2}}").ray == {"resources": {"CPU": 2}}


def test_a_job_without_a_ray_section_keeps_its_digest() -> None:
    assert "ray" not in load(TRAINING).to_json()


@pytest.mark.parametrize(
    ("section", "message", "hint"),
    [
        ("placement: spread", "f:4: ray.placement: is not a placement: 'spread'", "SPREAD"),
        ("placement: [PACK]", "f:4: ray.placement: must be a string, not a list", "string"),
        ("resource: {}", "f:4: ray.resource: unknown field", "resources"),
        ("resources: 4", "f:4: ray.resources: must be a mapping", "CPU"),
        ("resources: {chief: 4}", "f:4: ray.resources.chief: must be a mapping", "CPU"),
        ("resources: {chief: {}, workers: {}}", "f:4: ray.resources.workers: is not a role", "worker"),
        ("resources: {chief: {}, master: {}}", "f:4: ray.resources.master: is the role chief", "keep one"),
        ("resources: {cpu: 4}", "f:4: ray.resources.cpu: is not the name of a resource", "write CPU"),
        ("resources: {memory: 4}", "f:4: ray.resources.memory: is not the name", "memory_gib, the memory in GiB"),
        ("resources: {TPU: 4}", "f:4: ray.resources.TPU: is not supported: replicas on Ray get no TPUs", "vertex"),
        ("resources: {TPU-v4-16-head: 1}", "f:4: ray.resources.TPU-v4-16-head: is not supported", "vertex"),
        ("resources: {CPU: '4'}", "f:4: ray.resources.CPU: must be a number, not 4", "CPU: 4"),
        ("resources: {CPU: true}", "f:4: ray.resources.CPU: must be a number, not true", "CPU: 4"),
        ("resources: {CPU: .inf}", "f:4: ray.resources.CPU: must be a number, not .inf", "CPU: 4"),
        ("resources: {CPU: -1}", "f:4: ray.resources.CPU: is -1", "0 or more"),
        ("resources: {GPU: 1.5}", "f:4: ray.resources.GPU: is 1.5", "an integer"),
        ("resources: {GPU: 0.00001}", "f:4: ray.resources.GPU: is 1e-05", "0.0001"),
    ],
)
def test_an_invalid_field_is_named_with_its_line(section: str, message: str, hint: str) -> None:
    with pytest.raises(JobFileError) as error:
        load(f"{TRAINING}ray:\n  {section}\n", name="f")
    assert error.value.message.startswith(message)
    assert hint in error.value.hint


def test_a_ray_section_inside_the_training_input_is_refused() -> None:
    with pytest.raises(JobFileError, match="ray: is not a field of trainingInput"):
        load(f"{TRAINING}  ray: {{placement: PACK}}\n")
