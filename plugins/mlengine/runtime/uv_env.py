"""The environment variables for uv, used wherever this project starts uv.

* uv uses the system's certificates if there are any, as pip does: a company's certificate authority is in the system's
  store, not in the one that comes with uv.
* pip's variables (``PIP_INDEX_URL``, …) are translated to uv's, so that a machine configured for pip works.

``pip.conf`` is not read; uv reads ``uv.toml``. This module uses the standard library only, as ``scripts/bootstrap.py``
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
    """Add uv's variables to ``env``. Variables that are set already are kept.

    :param env: the variables that uv inherits.
    :param job_env: a job's variables: its ``PIP_*`` take precedence over ``env``, as in a container.
    """
    job_pip = {name: value for name, value in (job_env or {}).items() if name.startswith(PIP_PREFIX)}
    result = {**env, **_translated(env), **job_pip, **_translated(job_pip)}
    if not {"UV_SYSTEM_CERTS", "UV_NATIVE_TLS"} & set(result) and has_system_certificates():
        result["UV_SYSTEM_CERTS"] = "true"
    return result


def index_options(env: Mapping[str, str]) -> list[str]:
    """Options for uv commands that use an index, for variables of pip without an equivalent variable of uv.

    :param env: as :func:`uv_environment` returns it.
    """
    return ["--no-index"] if _is_true(env.get("PIP_NO_INDEX", "")) else []


def install_options(env: Mapping[str, str]) -> list[str]:
    """Options for ``uv pip install``, for variables of pip without an equivalent variable of uv.

    :param env: as :func:`uv_environment` returns it.
    """
    options = index_options(env)
    for name, option in (("PIP_NO_BINARY", "--no-binary"), ("PIP_ONLY_BINARY", "--only-binary")):
        for package in env.get(name, "").replace(",", " ").split():
            options += [option, package]
    return options


def has_system_certificates() -> bool:
    """Whether this machine has trusted certificates. With an empty store uv could not verify any server."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    try:
        return bool(paths.capath) and any(Path(paths.capath).iterdir())
    except OSError:
        return False


def _translated(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of pip in ``env``, translated to uv's; those set for uv already are left out."""
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
    """A number of seconds, converted to an integer, which uv requires."""
    try:
        return str(max(1, round(float(value))))
    except (ValueError, OverflowError):
        return ""


def _links(value: str) -> str:
    """Convert pip's list (spaces) to uv's (commas), without missing directories: pip ignores them, uv fails."""
    links = (link if "://" in link else os.path.abspath(link) for link in value.split())  # noqa: PTH100
    return ",".join(link for link in links if "://" in link or Path(link).exists())


def _keyring(value: str) -> str:
    return value if value == "subprocess" else ""


# pip's variable; uv's variables, of which the first is set unless one of them is set; a function for the value.
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
