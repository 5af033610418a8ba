"""Listings of a view's rows, computed once per view and set of permitted DAGs instead of once per request.

Every open page requests the same rows, possibly ten thousand, every few seconds. Users have few different sets of
permissions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property

from pydantic import BaseModel, Field

from mlengine.core.job import JobState
from mlengine.job_index.rows import Row
from mlengine.web.index import View

_ENDED = frozenset(state.value for state in JobState if state.terminal)
_CACHED = 8  # maximum number of listings that are kept


class JobFilter(BaseModel):
    """The filter of a list of jobs.

    :param state: a state, ``active`` or ``ended``.
    :param text: a string to search for in ``MODEL/JOB_ID``, DAG, run, user, dataset version and verdict. Spaces around
        it are ignored.
    """

    model: str = ""
    state: str = ""
    text: str = Field(default="", max_length=200)
    dag_id: str = ""
    run_id: str = ""
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=50, ge=1, le=200)


class Listing:
    """The rows of a view that a user may see."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.active = sum(row.state not in _ENDED for row in rows)
        self.models = sorted({row.model for row in rows})

    @cached_property
    def _texts(self) -> list[str]:
        return [
            f"{row.model}/{row.job_id} {row.dag_id} {row.run_id} {row.by} {row.dataset} {row.verdict}".lower()
            for row in self.rows
        ]

    def matching(self, query: JobFilter) -> Sequence[Row]:
        """The rows that match a filter, newest first."""
        found = self.rows
        if text := query.text.strip().lower():
            found = [row for row, words in zip(found, self._texts, strict=True) if text in words]
        for name in ("model", "dag_id", "run_id"):
            if wanted := getattr(query, name):
                at = Row._fields.index(name)
                found = [row for row in found if row[at] == wanted]
        if query.state in {"active", "ended"}:
            ended = query.state == "ended"
            found = [row for row in found if (row.state in _ENDED) is ended]
        elif query.state:
            found = [row for row in found if row.state == query.state]
        return found


class Listings:
    """The listings of the newest view, by permitted DAGs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._view = View()
        self._dags: frozenset[str] = frozenset()
        self._known: dict[frozenset[str], Listing] = {}

    def dags(self, view: View) -> frozenset[str]:
        """The DAGs of all rows."""
        with self._lock:
            self._renew(view)
            return self._dags

    def of(self, view: View, allowed: frozenset[str]) -> Listing:
        """The listing of the rows of these DAGs."""
        with self._lock:
            self._renew(view)
            if allowed not in self._known:
                if len(self._known) >= _CACHED:
                    self._known.pop(next(iter(self._known)))
                self._known[allowed] = Listing([row for row in view.rows if row.dag_id in allowed])
            return self._known[allowed]

    def _renew(self, view: View) -> None:
        if view.rows is not self._view.rows:
            self._view, self._known = view, {}
            self._dags = frozenset(row.dag_id for row in view.rows)
