"""Converts between project ids and project numbers.

Google's services accept both in a request, and return numbers in resource names. The emulator has no list of projects:
it derives a number from each id that a client uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

_DIGITS = 12


def project_number(project: str) -> str:
    """The number of a project, which is always the same for an id.

    :param project: the id, or the number itself. An id begins with a letter.
    """
    if project.isdecimal():
        return project
    digest = int.from_bytes(hashlib.sha256(project.encode()).digest()[:8])
    return str(10 ** (_DIGITS - 1) + digest % (9 * 10 ** (_DIGITS - 1)))


def location_name(project: str, region: str) -> str:
    """The resource name of a location with the project number, as the service returns it."""
    return f"projects/{project_number(project)}/locations/{region}"


class Projects:
    """The projects that clients have used.

    :param ids: the ids that are known at the start.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ids = {project_number(project): project for project in ids}

    def id_of(self, project: str) -> str:
        """The id of a project, given its id or its number. The number of an unknown project is its own id."""
        if not project.isdecimal():
            self._ids[project_number(project)] = project
            return project
        return self._ids.get(project, project)

    def with_ids(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request of Cloud Logging with project ids in its resource names.

        Cloud Logging accepts numbers, but its entries have ids: "The project number is translated to its corresponding
        PROJECT_ID internally."
        """
        names = body.get("resourceNames")
        if not isinstance(names, list):
            return dict(body)
        return {**body, "resourceNames": [self._with_id(name) for name in names]}

    def _with_id(self, name: Any) -> Any:
        if not isinstance(name, str) or not name.startswith("projects/"):
            return name
        collection, project, *rest = name.split("/")
        return "/".join((collection, self.id_of(project), *rest))
