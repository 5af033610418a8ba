"""``make docs``: build the manual into ``.mlengine/site``, as a folder of pages that need no server and no internet.

A warning is an error: a link that leads nowhere, a page that is not in the contents. What builds it comes from
``requirements-docs.lock`` into an environment of its own, and is in no other lock. ARGS go to mkdocs: ``ARGS="serve"``
shows the manual and follows changes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.bootstrap import ROOT, uv_environment

LOCK = ROOT / "requirements-docs.lock"


def main(argv: Sequence[str]) -> int:
    uv = str(Path(sys.executable).with_name("uv"))
    words = list(argv) if argv and not argv[0].startswith("-") else ["build", "--strict", "--quiet", *argv]
    command = [uv, "run", "--quiet", "--isolated", "--no-project", "--python", sys.executable]
    # Its theme advertises its successor at each build.
    env = {**uv_environment(), "NO_MKDOCS_2_WARNING": "1"}
    env.pop("VIRTUAL_ENV", None)
    code = subprocess.run(
        [*command, "--with-requirements", str(LOCK), "mkdocs", *words], cwd=ROOT, env=env, check=False
    ).returncode
    if code == 0 and words[0] == "build":
        sys.stdout.write(f"the manual: {ROOT / '.mlengine' / 'site' / 'index.html'}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
