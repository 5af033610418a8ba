"""A fake ``nvidia-smi`` that prints what the real tool prints for ``-L``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

L4 = """\
GPU 0: NVIDIA L4 (UUID: GPU-11111111-aaaa-4bbb-8ccc-000000000000)
GPU 1: NVIDIA L4 (UUID: GPU-22222222-aaaa-4bbb-8ccc-000000000001)
"""
# Card 0 is partitioned, card 1 is not.
MIG = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-7c1ab0e9-11d2-4d6c-9e9f-0a4f1f6d2f11)
"""
# The output of drivers before R470.
OLD_MIG = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb Device 0: (UUID: MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/7/0)
"""
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, output: str = L4, code: int = 0) -> Path:
    """Put the tool first on ``PATH``. Returns a file that gets a line for each call."""
    folder.mkdir(exist_ok=True)
    (folder / "output").write_text(output)
    script = folder / "nvidia-smi"
    script.write_text(f'#!/bin/sh\necho "$*" >> {folder}/calls\ncat {folder}/output\nexit {code}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "calls"
