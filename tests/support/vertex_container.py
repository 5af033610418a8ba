"""Runs the command, args and variables of a Vertex AI container locally, with only Python and pip installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from mlengine.backends import Submission
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.request import Request, custom_job
from mlengine.core.expansion import expand
from mlengine.core.spec import TrainingSpec

_LOCK = threading.Lock()
_PASSED = ("PIP_", "SSL_", "REQUESTS_", "TMPDIR")  # this machine's settings that pip needs


def make_image(root: Path) -> Path:
    """Create the content of a plain Python image: an interpreter, and pip with its bytecode.

    All images in one folder are hard links to the first one. This is safe because pip replaces files and never writes
    into existing ones.
    """
    base = root.with_name("base-image")
    with _LOCK:
        if not base.exists():
            _install_pip(base)
    shutil.copytree(base, root, symlinks=True, copy_function=os.link)
    return root


def _install_pip(root: Path) -> None:
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, root], check=True)
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(root / "bin" / "python"), "pip"]
    subprocess.run(install, check=True)


def request(spec: TrainingSpec, job_dir: str, **options: Any) -> Request:
    """The request that creates the job."""
    return custom_job(Submission("a" * 40, "j", 3, job_dir, spec), VertexOptions.of(options))


def start(
    image: Path, spec: TrainingSpec, env: dict[str, str], *, job_dir: str = "gs://bucket/m/j", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the chief's container to its end."""
    container = request(spec, job_dir, **options).body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    own = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    # Expand these variables first, as the service does.
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    variables = {name: expand(value, {}) for name, value in given.items()}
    return subprocess.run(
        [expand(word, variables) for word in (*container["command"], *container["args"])],
        env={"PATH": f"{image}/bin:/usr/bin:/bin", "HOME": str(image), **own, **variables, **env},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
