"""Tests gcsfs, the Google provider's file system, with the environment variables of the Cloud Storage server."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlengine.testing.gcs import GcsServer

pytestmark = pytest.mark.integration

# Without these variables, the first call takes more than a minute.
SECONDS = 40
USE = """
import sys, gcsfs
files = gcsfs.GCSFileSystem(token="anon")
files.pipe(sys.argv[1], b"hello")
print(files.cat(sys.argv[1]).decode(), files.exists(sys.argv[1] + "-not"))
"""


def test_gcsfs_uses_the_emulator_from_the_environment(gcs_server: GcsServer, bucket: str) -> None:
    pytest.importorskip("gcsfs")
    env = {name: value for name, value in os.environ.items() if name not in gcs_server.env} | gcs_server.env
    command = [sys.executable, "-c", USE, f"{bucket}/gcsfs.txt"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout == "hello False\n", done.stderr
