"""The address and credentials of a Ray cluster: the settings ``ray_address``, ``ray_token`` and ``ray_headers``.

They are read in the order of :mod:`mlengine.settings`: argument, extra of the Airflow connection, configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from mlengine import settings
from mlengine.backends.ray.settings import json_setting
from mlengine.core.errors import BackendError, SettingError

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_VALUE = re.compile(r"[ -~]*")  # the value of a header
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True)
class Access:
    """The address of a cluster, and the headers with which its dashboard is called.

    :param address: the URL of the cluster's dashboard, without a trailing slash.
    :param headers: the headers of every request.
    """

    address: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def loopback(self) -> bool:
        """Whether the dashboard is on this machine, so that no proxy is used for it."""
        return urlsplit(self.address).hostname in _LOOPBACK

    @classmethod
    def find(
        cls,
        address: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read address and credentials from arguments, connection and configuration.

        :raises BackendError: there is no address, or it is not the URL of a dashboard.
        :raises SettingError: a header or the token is not valid.
        """
        found = settings.find("ray_address", address, extra)
        sent = {str(name): str(value) for name, value in json_setting("ray_headers", headers, extra).items()}
        for name, value in sent.items():
            if not _HEADER.fullmatch(name) or not _VALUE.fullmatch(value):
                raise SettingError(
                    f"ray_headers: {name!r} is not a header, or its value has other characters than printable ASCII"
                )
        secret = settings.get("ray_token", token, extra).strip()
        if secret:
            if not _VALUE.fullmatch(secret):
                raise SettingError(
                    "ray_token has other characters than printable ASCII",
                    hint="write the token alone, in one line",
                )
            sent["Authorization"] = f"Bearer {secret}"
        return cls(_checked(found), sent)


def _checked(found: settings.Found) -> str:
    if not found.value:
        raise BackendError(
            "no address of a Ray cluster",
            hint="set [mlengine] ray_address, or the connection's extra 'ray_address', to http://HOST:8265",
        )
    if not _is_url(found.value):
        raise BackendError(
            f"{found.source} is not the URL of a Ray dashboard: {found.value!r}",
            hint="write http://HOST:8265 (not ray://, and not the port 6379 of the cluster itself)",
        )
    parts = urlsplit(found.value)
    if parts.username or parts.password:
        raise BackendError(f"{found.source} contains a password", hint="use ray_token or ray_headers instead")
    return found.value.rstrip("/")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or the brackets of an IPv6 address are not balanced
        return False


def extra_of(gcp_conn_id: str | None) -> Mapping[str, Any]:
    """The extra of an Airflow connection; empty without ``gcp_conn_id``, or if the connection does not exist."""
    if gcp_conn_id is None:
        return {}
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from mlengine.storage.credentials import plain_extras

    try:
        return plain_extras(BaseHook.get_connection(gcp_conn_id).extra_dejson)
    except AirflowNotFoundException:
        return {}
