"""Converts the option ``reservation`` to the API's ``reservationAffinity``: a specific one, any that fits, or none."""

from __future__ import annotations

import re
from typing import Any

from mlengine.core.errors import BackendError

NAME = re.compile(r"projects/[^/]+/zones/(?P<zone>[^/]+)/reservations/[^/]+")
_KEY = "compute.googleapis.com/reservation-name"
# "none" keeps a job out of reservations that would otherwise be used automatically.
_WORDS = {"any": "ANY_RESERVATION", "none": "NO_RESERVATION"}


def affinity(reservation: str) -> dict[str, Any]:
    """The ``reservationAffinity`` of a machine.

    :param reservation: ``any``, ``none``, or the full resource name of a reservation, which the API requires.
    :raises BackendError: ``reservation`` is none of these.
    """
    if reservation in _WORDS:
        return {"reservationAffinityType": _WORDS[reservation]}
    if not NAME.fullmatch(reservation):
        raise BackendError(
            f"not a reservation: {reservation!r}",
            hint="use any, none, or the full name, projects/PROJECT/zones/ZONE/reservations/NAME",
        )
    return {"reservationAffinityType": "SPECIFIC_RESERVATION", "key": _KEY, "values": [reservation]}
