"""Converts times between seconds since the epoch and RFC 3339 in UTC, the format of Google's APIs."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds(stamp: str) -> float:
    """Convert an RFC 3339 time to seconds since the epoch. Fractions beyond microseconds are truncated.

    :raises ValueError: ``stamp`` is not an RFC 3339 time.
    """
    moment = datetime.fromisoformat(stamp.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def rfc3339(moment: float) -> str:
    """A time in seconds since the epoch in RFC 3339, such as ``2026-11-23T14:00:00.123456Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
