"""The queue of this machine's jobs, in order of submission.

The file ``queue/<ticket>-<job>`` represents one job that waits or runs. A job may run when fewer than ``capacity``
unfinished jobs are ahead of it. The queue holds no lock while a job runs, so a crash cannot block a slot.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from mlengine.backends.local.record import Job
from mlengine.runtime.file_lock import FileLock, held

# The longest time between a job's ticket and the moment at which its launcher holds the file lock.
START_SECONDS = 60.0
# Other files in the directory are ignored.
_TICKET = re.compile(r"(\d{10})-(.+)")


@dataclass(frozen=True)
class Ticket:
    number: int
    job: str
    path: Path


@dataclass(frozen=True)
class Queue:
    """The jobs of one state directory that have not ended."""

    state_dir: Path

    @property
    def folder(self) -> Path:
        return self.state_dir / "queue"

    def enter(self, job: str) -> Ticket:
        """Add the job to the queue. A repeated call returns the existing ticket."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock.take(self.state_dir / "locks" / "queue.lock", wait=30.0)
        try:
            tickets = self.tickets()
            for ticket in tickets:
                if ticket.job == job:
                    return ticket
            number = tickets[-1].number + 1 if tickets else 1
            path = self.folder / f"{number:010d}-{job}"
            path.touch()
            return Ticket(number, job, path)
        finally:
            if lock is not None:
                lock.give_back()

    def leave(self, job: str) -> None:
        """Remove the job from the queue. The call can be repeated safely."""
        for ticket in self.tickets():
            if ticket.job == job:
                ticket.path.unlink(missing_ok=True)

    def tickets(self) -> list[Ticket]:
        """All tickets, in order of submission."""
        if not self.folder.is_dir():
            return []
        pairs = ((path, _TICKET.fullmatch(path.name)) for path in self.folder.iterdir())
        return sorted(
            (Ticket(int(match[1]), match[2], path) for path, match in pairs if match),
            key=lambda ticket: ticket.number,
        )

    def place(self, job: str, capacity: int, reap: Callable[[Job], object]) -> int:
        """The job's position among the waiting jobs, from 1; 0 if it may run.

        :param reap: called with an earlier job whose launcher has died, to end the processes that it left.
        """
        before = self._before(job)
        living = 0
        for done, ticket in enumerate(before):
            if living >= capacity:
                # Whether the others are alive does not matter: this job cannot run yet.
                living += len(before) - done
                break
            living += self._is_alive(ticket, reap)
        return max(0, living - capacity + 1)

    def ahead(self, job: str) -> list[Job]:
        """The jobs that were submitted earlier and have a ticket."""
        return [Job(self.state_dir / "jobs" / ticket.job) for ticket in self._before(job)]

    def _before(self, job: str) -> list[Ticket]:
        return list(takewhile(lambda ticket: ticket.job != job, self.tickets()))

    def _is_alive(self, ticket: Ticket, reap: Callable[[Job], object]) -> bool:
        job = Job(self.state_dir / "jobs" / ticket.job)
        if held(job.lock_file):
            return not job.terminal()
        if job.state() is None and _young(ticket.path):
            return True
        reap(job)
        if job.submission_file.exists() and not job.terminal():
            return True  # the processes that the job's launcher left are given time to save
        ticket.path.unlink(missing_ok=True)
        return False


def _young(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_mtime) < START_SECONDS  # it is in the future if the clock was set back
    except FileNotFoundError:
        return False
