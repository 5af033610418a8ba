"""The environment variables that a launcher and a replica inherit: an allowlist.

A worker's environment contains the database's password and the fernet key (``AIRFLOW__*``), and a trainer is other
people's code. Variables that are not listed here are not inherited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Every process of a job has the job's directory in this variable, by which orphans are found.
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
# Settings of uv and pip may contain an index's password. The launcher needs them, and the trainer does not.
# UV_PYTHON is left out, because the job's settings choose the interpreter.
_LAUNCHER = re.compile(r"UV_(?!(?:SYSTEM_)?PYTHON$)\w+ | PIP_\w+ | XDG_\w+ | NETRC", re.VERBOSE)
_LOOPBACK = ("127.0.0.1", "localhost")
# pip's settings, for programs that install packages at run time. Values with a password are not inherited.
_PIP = re.compile(
    r"PIP_(CERT|CONFIG_FILE|DEFAULT_TIMEOUT|(EXTRA_)?INDEX_URL|FIND_LINKS|NO_INDEX|PROXY|RETRIES|TRUSTED_HOST)"
)
_PASSWORD = re.compile(r"://[^/\s]*@")
_STORAGE_EMULATOR = "STORAGE_EMULATOR_HOST"
# Without it, gcsfs calls a gRPC API that Cloud Storage emulators lack, and waits for more than a minute.
_GCSFS = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"


def for_launcher(parent: Mapping[str, str]) -> dict[str, str]:
    """The variables that a launcher inherits."""
    patterns = (_REPLICA, _LAUNCHER, _PIP)
    return {name: value for name, value in parent.items() if any(pattern.fullmatch(name) for pattern in patterns)}


def for_replica(parent: Mapping[str, str]) -> dict[str, str]:
    """The variables that a replica inherits from the launcher; the job's own variables are added later."""
    env = {
        name: value
        for name, value in parent.items()
        if _REPLICA.fullmatch(name) or (_PIP.fullmatch(name) and not _PASSWORD.search(value))
    }
    if env.get(_STORAGE_EMULATOR):
        env.setdefault(_GCSFS, "false")
    if any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in env):
        # Replicas communicate on loopback, and gRPC would use a proxy even for loopback.
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in env.get(name, "").split(",") if host]
            env[name] = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])
    return env
