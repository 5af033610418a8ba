"""``make lock``: compile the lock files from ``pyproject.toml``. ARGS are passed to uv, e.g. ``--upgrade``.

The development lock contains the runtime lock with the same versions. The image's lock has only packages that are not
in the runtime lock, because both are installed there. No lock names a registry, so they work with any registry. The
lock for the docs is independent of the others.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.bootstrap import LOCKS, ROOT, uv_environment

_COMPILE = ("pip", "compile", "pyproject.toml", "--extra", "testing", "--universal", "--python-version", "3.11")
IMAGE = ROOT / "requirements-image.lock"
_DOCS = ("pip", "compile", "--group", "docs", "--universal", "--python-version", "3.11")
_SHAPE = ("--generate-hashes", "--no-header", "--no-annotate", "--quiet")


def main(argv: Sequence[str]) -> int:
    uv = str(Path(sys.executable).with_name("uv"))
    run, dev = (str(LOCKS[kind].relative_to(ROOT)) for kind in ("run", "dev"))
    with tempfile.TemporaryDirectory(prefix="lock-") as scratch:
        image = Path(scratch) / IMAGE.name
        if IMAGE.exists():
            image.write_bytes(IMAGE.read_bytes())  # keeps the pinned versions unless --upgrade is given
        for command in (
            [uv, *_COMPILE, *_SHAPE, "--group", "build", "--group", "shared", *argv, "-o", run],
            [uv, *_COMPILE, *_SHAPE, "--group", "dev", *argv, "-c", run, "-o", dev],
            [uv, *_DOCS, *_SHAPE, *argv, "-o", "requirements-docs.lock"],
            [uv, *_COMPILE, *_SHAPE, "--group", "build", "--group", "image", *argv, "-c", run, "-o", str(image)],
        ):
            code = subprocess.run(
                command, cwd=ROOT, env=uv_environment(), stdout=subprocess.DEVNULL, check=False
            ).returncode
            if code:
                return code
        whole, known = image.read_text(encoding="utf-8"), LOCKS["run"].read_text(encoding="utf-8")
        IMAGE.write_text(beyond(whole, known), encoding="utf-8")
    return 0


def beyond(lock: str, known: str) -> str:
    """The requirements of ``lock``, with their hashes, that are not in ``known``."""
    there = set(_REQUIREMENT.findall(known))
    return "".join(part for part in re.split(_BEGINNING, lock) if part.strip() and _name(part) not in there)


_REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)==", re.MULTILINE)
_BEGINNING = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)


def _name(requirement: str) -> str:
    match = _REQUIREMENT.match(requirement)
    return match[1] if match else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
