"""The scoring process: a script that is run by its path with the trainer's Python.

Its argument is the JSON file of a :class:`~mlengine.validation.scoring.job.ScoringJob`, which
:mod:`mlengine.validation.scoring_process` writes. Before the model is loaded, the process limits itself.

Exit codes: 0: the model was measured; 3: the model failed; 4: the environment lacks a package that the model needs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

NAME = "mlengine_scoring"  # the name of this package here: it must not hide a framework, or require mlengine
FILE_BYTES = 2 * 1024**3  # limit of every file that it writes, such as the model's outputs or its log


def main(config: dict[str, Any], rows_written: threading.Event) -> int:
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not a package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    return int(importlib.import_module(f"{NAME}.job").ScoringJob(config, rows_written).run())


def restrain(config: dict[str, Any]) -> None:
    """Limit this process before the model is loaded."""
    try:
        import resource

        if config.get("memory_bytes"):
            # RLIMIT_DATA counts private writable memory only. RLIMIT_AS would also count the mapped library.
            resource.setrlimit(resource.RLIMIT_DATA, (config["memory_bytes"],) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the file of each column that the model reads is open
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)
    except (ImportError, ValueError, OSError) as error:
        sys.stderr.write(f"no memory limit on this system: {error}\n")
    with contextlib.suppress(OSError):
        # If the machine runs out of memory, let the kernel end this process rather than the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


def listen() -> threading.Event:
    """Wait in a thread for the parent's message that the held-out rows are complete; then the event is set.

    The message is a line on stdin. Stdin is a pipe, which is closed when the parent ends, for whatever reason; then
    this process ends too.
    """
    rows_written = threading.Event()

    def wait() -> None:
        if sys.stdin.buffer.readline():
            rows_written.set()
            sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return rows_written


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    event = listen()
    restrain(settings)
    try:
        code = main(settings, event)
    except BaseException:  # noqa: BLE001 -- an ordinary exit would abort in the thread that waits for the parent
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # TensorFlow's threads cannot be stopped cleanly
