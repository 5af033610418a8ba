"""Run a script that controls a browser, in a separate environment that has playwright, but not this project.

It needs Chromium on the machine (Debian: ``apt-get install chromium``). uv installs playwright for the run; no lock
file contains it. :mod:`scripts.visit` is the part that runs in the other environment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.bootstrap import uv_environment
from scripts.stack import ROOT

from mlengine.core.errors import StackError

_DRIVER = "playwright==1.65.2"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str:
    """The path of Chromium.

    :raises StackError: it is not installed.
    """
    for name in _BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise StackError("no Chromium on this machine", hint="apt-get install chromium")


def drive(module: str, order: Mapping[str, Any], scratch: Path, seconds: float = 600.0) -> dict[str, Any]:
    """Run ``module`` with an order. Returns its result.

    :param order: the input of the module, which is passed as JSON.
    :param scratch: the folder for the order and the browser's profile.
    :raises StackError: the module failed; the message includes its output.
    """
    path = scratch / "order.json"
    path.write_text(json.dumps(order), encoding="utf-8")
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "run", "--quiet", "--no-project", "--with", _DRIVER, "python", "-m", module, str(path)]
    env = {**uv_environment(), "HOME": str(scratch)}
    env.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise StackError(f"{module} ended with code {done.returncode}:\n{done.stdout}\n{done.stderr[-4000:]}")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen
