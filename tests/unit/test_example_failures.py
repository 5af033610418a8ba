"""The distributed examples log why they request a restart, as a bug in the code can look like a lost replica."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# The frameworks are mocks, except for their errors; the training raises one.
SOURCE = """
import importlib, sys
from unittest.mock import MagicMock

class FrameworkError(RuntimeError, ValueError):
    pass

for name in (
    "google.cloud", "jax", "jax.numpy", "jax.experimental", "jax.sharding", "keras", "numpy", "pyarrow",
    "pyarrow.parquet", "tensorflow", "torch", "torch.distributed", "torch.nn.parallel", "xgboost", "xgboost.tracker",
):
    sys.modules[name] = MagicMock()
sys.modules["torch"].nn.Module = object
sys.modules["jax"].errors.JaxRuntimeError = FrameworkError
sys.modules["xgboost"].core.XGBoostError = FrameworkError
sys.modules["xgboost"].collective.CommunicatorContext.return_value.__exit__.return_value = False
sys.modules["tensorflow"].errors.OpError = FrameworkError
task = importlib.import_module(sys.argv.pop(1))

def fail(*args, **kwargs):
    raise FrameworkError("the shapes differ")

task.train = task.Training = fail
task.meet = lambda rank, size: {}
task.Peers = MagicMock()
task.main()
"""


@pytest.mark.parametrize(
    ("example", "module"),
    [
        ("torch_digits", "digits.task"),
        ("jax_digits", "digits.task"),
        ("xgboost_digits", "digits.task"),
        ("flights", "flights.task"),
        ("flights_xgboost", "delays.task"),
    ],
)
def test_an_example_logs_the_traceback_before_it_requests_a_restart(example: str, module: str) -> None:
    replica = {"RANK": "0", "WORLD_SIZE": "1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0", "DMLC_TASK_ID": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SOURCE, module, "--dataset", "gs://b/datasets/d/1", "--job-dir", "gs://b/m/j"],
        env={**os.environ, **replica, "PYTHONPATH": str(EXAMPLES / example)},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert "in fail" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("FrameworkError: the shapes differ")
