"""Models of many frameworks on small data: an environment with the frameworks, a dataset per kind, and the recipes.

The recipes are those of docs/own-model.md. The environment's package also contains the scorers that the tests name.
"""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlengine.core.layout import JobDir, join
from mlengine.core.thresholds import Thresholds
from mlengine.datasets import add
from mlengine.datasets.register import Options
from mlengine.datasets.roles import Roles
from mlengine.storage.client import Storage
from mlengine.validation.environment import local_environment
from mlengine.validation.job import load_job
from mlengine.validation.report import Report
from mlengine.validation.rules import Rules
from mlengine.validation.scoring_process import Limits
from mlengine.validation.validation import validate

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
FRAMEWORKS = (
    *("numpy==2.4.6", "pandas==3.1.1", "scikit-learn==1.9.1", "joblib==1.6.0", "xgboost-cpu==3.2.0"),
    *("lightgbm==4.7.0", "onnxruntime==1.32.0", "skl2onnx==1.20.0", "onnx==1.23.2"),
    "pyarrow==26.0.1",
)
RULES = Rules(limits=Limits(seconds=600, memory_bytes=3 * 1024**3))
Data = dict[str, Any]

# Scorers that are wrong, each in a different way. Tests name them as own_models:<name>.
SCORERS = """
import numpy as np


def _made(function):
    return lambda model_dir: function


raises = _made(lambda batch: 1 / 0)
too_few = _made(lambda batch: np.zeros(len(batch["charges"]) - 1))
not_finite = _made(lambda batch: np.full(len(batch["charges"]), np.nan))
wrong_shape = _made(lambda batch: np.zeros((len(batch["charges"]), 2, 2)))
text = _made(lambda batch: np.array(["yes"] * len(batch["charges"])))
right = _made(lambda batch: (batch["charges"] / 120 > batch["tenure"] / 72) * 0.8 + 0.1)
half = _made(lambda batch: (batch["charges"] > 65) * 0.8 + 0.1)
wrong = _made(lambda batch: (batch["charges"] / 120 <= batch["tenure"] / 72) * 0.8 + 0.1)
price = _made(lambda batch: batch["charges"] * 10_000.0 + 3)
"""


def recipes() -> dict[str, tuple[str, str]]:
    """The environment (``tensorflow`` or ``frameworks``) and the code of each recipe of the page, by name."""
    found = re.findall(
        r"<!-- recipe: (\w+) (\w+) -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    return {f"{environment}-{name}": (environment, code) for environment, name, code in found}


def data(rows: int = 400, seed: int = 1) -> Data:
    """Columns for every recipe; ``churned`` follows from ``charges`` and ``tenure``."""
    random = np.random.default_rng(seed)
    columns: Data = {
        "tenure": random.uniform(0, 72, rows).astype(np.float32),
        "charges": random.uniform(10, 120, rows).astype(np.float32),
        "calls": random.integers(0, 9, rows),
        "plan": random.choice(["basic", "plus", "pro"], rows).astype(object),
        "label": random.integers(0, 3, rows),
    }
    late = columns["charges"] / 120 > columns["tenure"] / 72
    columns["churned"] = np.where(late, "yes", "no").astype(object)
    spam = np.arange(rows) % 2 == 1
    number = random.integers(0, 2**40, rows)  # no two messages are equal
    texts = np.where(spam, "win money now", "see you at lunch")
    columns["message"] = np.array([f"{text} {at}" for text, at in zip(texts, number, strict=True)], object)
    columns["spam"] = np.where(spam, "yes", "no").astype(object)
    columns["price"] = columns["charges"].astype(np.float64) * 10_000
    rows_of = np.arange(8)[None, :, None] // 3
    shade = 80 * (columns["label"][:, None, None] == rows_of)
    columns["image"] = (random.integers(0, 60, (rows, 8, 8)) + shade).astype(np.uint8)
    # Categorical columns whose numbers are not category codes, and whose names are missing in some rows.
    shop = np.arange(rows) % 4
    columns["shop"] = shop * 10 + 20
    columns["town"] = np.array(["Bern", "Chur", "Genf", None], object)[shop]
    columns["open"] = np.where(shop % 2 == 1, "yes", "no").astype(object)
    return columns


def wheel(name: str, requirements: tuple[str, ...], files: dict[str, str]) -> bytes:
    """A package with the given modules and requirements. The bytes are the same each time."""
    info = f"{name}-1.0.dist-info"
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        + "".join(f"Requires-Dist: {line}\n" for line in requirements),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


def frameworks_wheel() -> bytes:
    return wheel("own_models", FRAMEWORKS, {"own_models.py": SCORERS, "recipe.py": recipes()["frameworks-scorer"][1]})


@dataclass
class OwnModels:
    """A bucket, and an environment with a framework.

    :param package: URI of the package for which the environment was built.
    """

    storage: Storage
    bucket: str
    package: str
    state_dir: Path
    scratch: Path

    def register(self, target: str, columns: tuple[str, ...], *, task: str | None = None, name: str = "data") -> str:
        """Register training and held-out rows with these columns; returns the version's URI."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self.scratch / name
        for split, seed in (("train", 1), ("heldout", 2)):
            values = data(seed=seed)
            arrays = {
                column: pa.FixedShapeTensorArray.from_numpy_ndarray(values[column])
                if values[column].ndim == 3
                else pa.array(values[column])
                for column in (*columns, target)
            }
            (folder / split).mkdir(parents=True)
            pq.write_table(pa.table(arrays), folder / split / "part-0.parquet")
        roles = Roles(target=target, task=task)
        options = Options(license="CC0-1.0", source="test", roles=roles)
        add(self.storage, self.bucket, name, "v1", folder, options=options)
        return f"{self.bucket}/datasets/{name}/v1"

    def train(self, code: str, name: str) -> Path:
        """Run a recipe with the environment's Python, and return the model's folder."""
        model_dir = self.scratch / f"model-{name}"
        model_dir.mkdir()
        np.savez(self.scratch / "train.npz", **data())
        script = self.scratch / f"{name}.py"
        script.write_text(
            "import numpy as np\n"
            f"train = dict(np.load({str(self.scratch / 'train.npz')!r}, allow_pickle=True))\n"
            f"model_dir = {str(model_dir)!r}\n{code}"
        )
        with local_environment(self.storage, [self.package], self.state_dir).python() as python:
            done = subprocess.run([python, script], check=False, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stderr[-3000:]
        return model_dir

    def validate(self, model_dir: Path, dataset: str, rules: Rules = RULES, *, name: str = "own") -> Report:
        """Upload the model as that of a finished job, and validate it."""
        job_dir = JobDir.of(self.bucket, "own", name)
        self.storage.write(job_dir.model + ".keep", b"")
        for path in model_dir.rglob("*"):
            if path.is_file():
                self.storage.upload(path, join(job_dir.model, path.relative_to(model_dir).as_posix()))
        job = load_job(self.storage, job_dir.uri, model="own", package_uris=[self.package], dataset=dataset)
        environment = local_environment(self.storage, [self.package], self.state_dir)
        return validate(self.storage, job, rules, environment)


def thresholds(**metrics: Any) -> Thresholds:
    return Thresholds.from_json(metrics)
