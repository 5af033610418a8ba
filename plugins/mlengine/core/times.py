"""Times as Google's APIs write them: RFC 3339 in UTC, to and from seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds(stamp: str) -> float:
    """Seconds since the epoch. Fractions beyond microseconds are truncated.

    :raises ValueError: it is not an RFC 3339 time.
    """
    moment = datetime.fromisoformat(stamp.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def rfc3339(moment: float) -> str:
    """``2026-11-23T14:00:00.123456Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
