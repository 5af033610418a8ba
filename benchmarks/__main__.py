"""``python -m benchmarks [NAME [ARGS …]]``: all benchmarks, or one with its arguments."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def main(argv: list[str]) -> int:
    """Exit code: 1 if a result is over its budget, 2 for an unknown name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    if argv and argv[0] not in names:
        sys.stderr.write(f"benchmarks: no {argv[0]!r}; there are: {', '.join(names)}\n")
        return 2
    worst = 0
    for name in argv[:1] or names:
        print(f"--- {name}")
        worst = max(worst, import_module(f"benchmarks.{name}").main(argv[1:]))
        print()
    return worst


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
