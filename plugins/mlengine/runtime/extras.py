"""Determines the extra of a package that a replica gets: ``cpu``, ``gpu`` or ``tpu``, if the package declares it.

With extras, one package can name a framework's CPU build and its GPU build, which cannot be installed together.

This module uses the standard library only, and nothing newer than Python 3.8, because the start command of a container
(:mod:`mlengine.backends.vertex.bootstrap`) includes this source.
"""

from __future__ import annotations

import zipfile
from email.parser import HeaderParser
from pathlib import Path

# The backend sets these for replicas with an accelerator: its name, and how many of them this machine has.
ACCELERATOR_TYPE = "MLENGINE_ACCELERATOR_TYPE"
ACCELERATOR_COUNT = "MLENGINE_ACCELERATOR_COUNT"


def extra_for(accelerator: str) -> str:
    """The extra for an accelerator, such as ``NVIDIA_L4``; "" means no accelerator."""
    if not accelerator:
        return "cpu"
    return "tpu" if accelerator.startswith("TPU") else "gpu"


def wheel_with_extra(wheel: Path, extra: str) -> str:
    """The wheel as an argument of pip, with the extra if the wheel declares it."""
    with zipfile.ZipFile(wheel) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    declared = [name for text in texts for name in HeaderParser().parsestr(text).get_all("Provides-Extra", [])]
    return f"{wheel}[{extra}]" if extra in declared else str(wheel)
