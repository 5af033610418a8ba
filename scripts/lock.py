"""``make lock``: compile the lock files anew from ``pyproject.toml``. ARGS go to uv, e.g. ``--upgrade``.

The lock for development holds the one for running, version by version. Neither names a registry, so both are good
with whichever one a machine uses.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.bootstrap import LOCKS, ROOT

_COMPILE = ("pip", "compile", "pyproject.toml", "--extra", "testing", "--universal", "--python-version", "3.11")
_SHAPE = ("--generate-hashes", "--no-header", "--no-annotate", "--quiet")


def main(argv: Sequence[str]) -> int:
    uv = str(Path(sys.executable).with_name("uv"))
    run, dev = (str(LOCKS[kind].relative_to(ROOT)) for kind in ("run", "dev"))
    for command in (
        [uv, *_COMPILE, *_SHAPE, "--group", "build", *argv, "-o", run],
        [uv, *_COMPILE, *_SHAPE, "--group", "dev", *argv, "-c", run, "-o", dev],
    ):
        code = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
