"""``make docs``: build the docs into ``.mlengine/site``, as pages that need neither a server nor the internet.

Warnings, such as a broken link or a page that is missing in the navigation, are errors. mkdocs is installed from
``requirements-docs.lock`` into a separate environment. ARGS are passed to mkdocs: ``ARGS="serve"`` serves the docs and
rebuilds them after changes.
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
    # Without this, the theme prints an advertisement in each build.
    env = {**uv_environment(), "NO_MKDOCS_2_WARNING": "1"}
    env.pop("VIRTUAL_ENV", None)
    code = subprocess.run(
        [*command, "--with-requirements", str(LOCK), "mkdocs", *words], cwd=ROOT, env=env, check=False
    ).returncode
    if code == 0 and words[0] == "build":
        sys.stdout.write(f"docs: {ROOT / '.mlengine' / 'site' / 'index.html'}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
