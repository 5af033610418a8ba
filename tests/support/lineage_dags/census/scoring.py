"""A scorer whose score increases with age, or decreases if the model is reversed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(model_dir: str) -> Callable[[dict[str, Any]], Any]:
    opposite = json.loads((Path(model_dir) / "model.json").read_text())

    def predict(batch: dict[str, Any]) -> Any:
        share = batch["age"] / 100.0
        return 1.0 - share if opposite else share

    return predict
