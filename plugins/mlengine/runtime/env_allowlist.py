"""Which environment variables a launcher and a replica get: those on a list, never "all but the secret ones".

A worker's environment holds the database's password and the fernet key (``AIRFLOW__*``); a trainer is other people's
code. What is not named here does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Every process of a job carries its job's folder in this variable: that is how orphans are known.
MARK = "MLENGINE_LOCAL_JOB"

_REPLICA = re.compile(
    r"""
      PATH | HOME | USER | LOGNAME | SHELL | LANG | LC_\w+ | TZ | TMPDIR
    | \w*_proxy | \w*_PROXY
    | SSL_\w+ | CURL_CA_BUNDLE | REQUESTS_CA_BUNDLE
    | STORAGE_EMULATOR_HOST | GOOGLE_\w+ | CLOUDSDK_\w+ | GCS_\w+ | GCSFS_\w+ | NO_GCE_CHECK | GCE_METADATA_\w+
    | (?!TF_CONFIG$)TF_\w+ | OMP_\w+ | CUDA_\w+ | NVIDIA_\w+ | LD_LIBRARY_PATH
    """,
    re.VERBOSE,
)
# The settings of uv and pip may hold an index's password: the launcher needs them, the trainer does not.
# Its choice of an interpreter is not uv's to make.
_LAUNCHER = re.compile(
    r"UV_(?!(?:SYSTEM_)?PYTHON$)\w+ | PIP_\w+ | XDG_\w+ | NETRC | AIRFLOW__MLENGINE__LOCAL_\w+", re.VERBOSE
)
_LOOPBACK = ("127.0.0.1", "localhost")


def for_launcher(parent: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parent.items() if _REPLICA.fullmatch(name) or _LAUNCHER.fullmatch(name)}


def for_replica(parent: Mapping[str, str]) -> dict[str, str]:
    """What passes from the launcher to a replica, before the job's own variables."""
    env = {name: value for name, value in parent.items() if _REPLICA.fullmatch(name)}
    if any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in env):
        # The cluster talks on loopback, and gRPC would send even that through a proxy.
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in env.get(name, "").split(",") if host]
            env[name] = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])
    return env
