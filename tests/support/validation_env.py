"""A TensorFlow environment, good and bad models, and a dataset, for tests of validation, champions and prediction.

The models are created once a session, in one TensorFlow process; the local backend builds the environment.
"""

from __future__ import annotations

import io
import os
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

from scripts import mnist

from mlengine.core.layout import JobDir, dataset_dir, join
from mlengine.core.thresholds import Thresholds
from mlengine.storage.client import Storage
from mlengine.validation.environment import ValidationEnvironment, local_environment
from mlengine.validation.job import load_job
from mlengine.validation.report import Report
from mlengine.validation.rules import Rules
from mlengine.validation.scoring_process import Limits
from mlengine.validation.serving_signature import ServingSignature
from mlengine.validation.validation import validate as run_validation

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "trainer" / "constraints.txt"
SHARED = "gs://validation-shared"
PACKAGE = f"{SHARED}/packages/validation_env/1/validation_env-1.0-py3-none-any.whl"
VERSIONS = ("2026-10-01", "2026-11-01")
# The small network of make_models.py reaches an accuracy of 0.969.
SIGNATURE = {
    "inputs": {"key": "int64[-1]", "image": "float32[-1,784]"},
    "outputs": {"key": "int64[-1]", "scores": "float32[-1,10]"},
    "key": "key",
}
RULES = Rules(
    thresholds=Thresholds.from_json(
        {"accuracy": {"min": 0.95, "max_regression": 0.005}, "worst_class_recall": {"min": 0.9}}
    ),
    expected=ServingSignature.from_json(SIGNATURE),
    limits=Limits(seconds=600, memory_bytes=3 * 1024**3),
)


def requirements() -> list[str]:
    """TensorFlow and its dependencies, as pinned for the example trainer."""
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if "==" in line and not line.startswith("#")]
    wanted = [
        pin for pin in pins if not pin.startswith(("google-", "googleapis", "tensorflow", "grpcio-status", "nvidia-"))
    ]
    version = next(pin.split("==")[1] for pin in pins if pin.startswith("tensorflow"))
    return [
        *(pin for pin in wanted if pin.split("==")[0] not in {"cffi", "cryptography", "pyasn1-modules", "proto-plus"}),
        next(pin for pin in pins if pin.startswith("google-pasta")),
        f"tensorflow-cpu=={version}; sys_platform == 'linux' and platform_machine == 'x86_64'",
        f"tensorflow=={version}; sys_platform != 'linux' or platform_machine != 'x86_64'",
    ]


def wheel(*more: str) -> bytes:
    """A package without code whose environment has TensorFlow. The bytes are the same each time.

    :param more: additional requirements.
    """
    info = "validation_env-1.0.dist-info"
    files = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: validation-env\nVersion: 1.0\n"
        + "".join(f"Requires-Dist: {line}\n" for line in (*requirements(), *more)),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "validation_env/__init__.py": "",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


class ValidationEnv:
    """A bucket with a dataset, a state directory with an environment, and the models."""

    def __init__(self, storage: Storage, bucket: str, models: Path, state: Path) -> None:
        self.storage, self.bucket, self.models = storage, bucket, models
        self.place: ValidationEnvironment = local_environment(storage, [PACKAGE], state)

    def dataset(self, version: str = VERSIONS[-1]) -> str:
        return dataset_dir(SHARED, "mnist", version)

    def job(self, model: str, job_id: str = "", *, name: str = "mnist") -> JobDir:
        """A finished job whose model is ``model``."""
        job_dir = JobDir.of(self.bucket, name, job_id or f"mnist_{model}")
        self.storage.write(job_dir.model + ".keep", b"")
        source = self.models / model
        files = [path for path in source.rglob("*") if path.is_file()]
        for path in sorted(
            files, key=lambda path: path.name == "MANIFEST.json"
        ):  # upload the manifest last, as it marks a complete model
            self.storage.upload(path, join(job_dir.model, path.relative_to(source).as_posix()))
        return job_dir

    def validate(self, model: str, rules: Rules = RULES, *, version: str = VERSIONS[-1], job_id: str = "") -> Report:
        job_dir = self.job(model, job_id)
        subject = load_job(self.storage, job_dir.uri, package_uris=[PACKAGE], dataset=self.dataset(version))
        return run_validation(self.storage, subject, rules, self.place)


def checks(report: Report) -> Mapping[str, str]:
    """The outcome of each check by name: ``ok``, ``FAILED`` or ``skipped``."""
    return {check.name: check.mark for check in report.verdict.checks}


def failed(report: Report) -> list[str]:
    return [check.name for check in report.verdict.checks if not check.passed]


def register_datasets(storage: Storage, digits: Path) -> None:
    """Create :data:`SHARED` with the package and every dataset version.

    The datasets have the complete held-out set and only few training rows, because these tests do not train on them.
    """
    storage.client.create_bucket(SHARED.removeprefix("gs://"))
    storage.write(PACKAGE, wheel())
    for version in VERSIONS:
        mnist.register(storage, SHARED, digits, version, train=1000)


def make_models(storage: Storage, digits: Path, folder: Path, state_dir: Path) -> None:
    """Write every model of ``make_models.py`` into ``folder``."""
    with local_environment(storage, [PACKAGE], state_dir).python() as python:
        script = Path(__file__).with_name("make_models.py")
        # On a busy machine the threads of numpy's BLAS busy-wait for each other, which costs three times the CPU time.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            [python, script, digits, folder], check=False, capture_output=True, text=True, timeout=1500, env=env
        )
    assert done.returncode == 0, done.stderr[-3000:]
