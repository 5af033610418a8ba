"""Benchmarks. Each is a module with ``main(argv)`` that prints ratios to a baseline measured in the same run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
