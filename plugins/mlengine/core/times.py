"""Times as Google's APIs write them: RFC 3339 in UTC, to and from seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def seconds(stamp: str) -> float:
    """Seconds since the epoch. Nanoseconds are read, and kept to what a float can hold.

    :raises ValueError: if it is no such time.
    """
    text = stamp.strip()
    whole, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if rest else ""
    zone = rest[len(digits) :]
    base = datetime.fromisoformat((whole + zone).replace("Z", "+00:00"))
    if base.tzinfo is None:
        base = base.replace(tzinfo=UTC)
    return (base + timedelta(seconds=float(f"0.{digits}") if digits else 0)).timestamp()


def rfc3339(moment: float) -> str:
    """``2026-11-23T14:00:00.123456Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
