"""The environment variables that uv is started with, wherever this project starts it.

* uv trusts the system's certificates where there are any, as pip does: a company's certificate authority is in the
  system's store, and not in the one that uv brings along.
* pip's own variables (``PIP_INDEX_URL``, …) are translated to uv's, so that a machine that is set up for pip works.

Does not read ``pip.conf``; uv reads its own ``uv.toml``. Needs the standard library only, as ``scripts/bootstrap.py``
runs it before anything is installed.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

PIP_PREFIX = "PIP_"
_TRUE = frozenset({"1", "true", "yes", "y", "on", "t"})
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


def uv_environment(env: Mapping[str, str], job_env: Mapping[str, str] | None = None) -> dict[str, str]:
    """``env`` for uv. What is set for uv itself is kept.

    :param env: the variables that uv may see.
    :param job_env: variables of a job: its ``PIP_*`` take precedence over ``env``, as they do in a container.
    """
    job_pip = {name: value for name, value in (job_env or {}).items() if name.startswith(PIP_PREFIX)}
    result = {**env, **_translated(env), **job_pip, **_translated(job_pip)}
    if not {"UV_SYSTEM_CERTS", "UV_NATIVE_TLS"} & set(result) and has_system_certificates():
        result["UV_SYSTEM_CERTS"] = "true"
    return result


def index_options(env: Mapping[str, str]) -> list[str]:
    """Options of any uv command that reads an index, for variables of pip that uv has no variable for.

    :param env: as :func:`uv_environment` returns it.
    """
    return ["--no-index"] if _is_true(env.get("PIP_NO_INDEX", "")) else []


def install_options(env: Mapping[str, str]) -> list[str]:
    """The same for ``uv pip install``.

    :param env: as :func:`uv_environment` returns it.
    """
    options = index_options(env)
    for name, option in (("PIP_NO_BINARY", "--no-binary"), ("PIP_ONLY_BINARY", "--only-binary")):
        for package in env.get(name, "").replace(",", " ").split():
            options += [option, package]
    return options


def has_system_certificates() -> bool:
    """Whether this machine has a store of trusted certificates. With an empty one, uv could verify no server."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    try:
        return bool(paths.capath) and any(Path(paths.capath).iterdir())
    except OSError:
        return False


def _translated(env: Mapping[str, str]) -> dict[str, str]:
    """What uv calls the variables of pip in ``env``, but for those that are set for uv already."""
    result = {}
    for pip_name, uv_names, translate in _VARIABLES:
        value = translate(env.get(pip_name, "").strip())
        if value and not any(env.get(name) for name in uv_names):
            result[uv_names[0]] = value
    return result


def _same(value: str) -> str:
    return value


def _is_true(value: str) -> bool:
    return value.strip().lower() in _TRUE


def _allow(value: str) -> str:
    return "allow" if _is_true(value) else ""


def _whole_number(value: str) -> str:
    """Seconds for uv, which takes whole ones only."""
    try:
        return str(max(1, round(float(value))))
    except (ValueError, OverflowError):
        return ""


def _links(value: str) -> str:
    """Separated by commas for uv, by spaces for pip; pip passes over a directory that does not exist, uv fails."""
    links = (link if "://" in link else os.path.abspath(link) for link in value.split())  # noqa: PTH100
    return ",".join(link for link in links if "://" in link or Path(link).exists())


def _keyring(value: str) -> str:
    return value if value == "subprocess" else ""


# pip's variable; uv's, in order: the first is set, unless one of them is; how the value is translated.
_VARIABLES: tuple[tuple[str, tuple[str, ...], Callable[[str], str]], ...] = (
    ("PIP_INDEX_URL", ("UV_DEFAULT_INDEX", "UV_INDEX_URL"), _same),
    ("PIP_EXTRA_INDEX_URL", ("UV_INDEX", "UV_EXTRA_INDEX_URL"), _same),
    ("PIP_FIND_LINKS", ("UV_FIND_LINKS",), _links),
    ("PIP_TRUSTED_HOST", ("UV_INSECURE_HOST",), _same),
    ("PIP_CERT", ("SSL_CERT_FILE",), _same),
    ("PIP_CLIENT_CERT", ("SSL_CLIENT_CERT",), _same),
    ("PIP_CONSTRAINT", ("UV_CONSTRAINT",), _same),
    ("PIP_BUILD_CONSTRAINT", ("UV_BUILD_CONSTRAINT",), _same),
    ("PIP_PRE", ("UV_PRERELEASE",), _allow),
    ("PIP_DEFAULT_TIMEOUT", ("UV_HTTP_TIMEOUT",), _whole_number),
    ("PIP_TIMEOUT", ("UV_HTTP_TIMEOUT",), _whole_number),
    ("PIP_RETRIES", ("UV_HTTP_RETRIES",), _same),
    ("PIP_PROXY", (*_PROXIES, *(name.lower() for name in _PROXIES)), _same),
    ("PIP_KEYRING_PROVIDER", ("UV_KEYRING_PROVIDER",), _keyring),
)
