"""The budget of log reads: one for each Google Cloud project, shared by all processes of this machine.

Cloud Logging allows 60 ``entries:list`` calls per minute and project. The quota cannot be raised, and a 429 response
has no ``Retry-After`` (Google's page on quotas, and its description of the service's responses, read in 2026). So all
readers of a machine (pollers, sensors, followers at a terminal, the web page) together use at most half of it by
default.

* The state is one small file for each project, under a lock. Readers do not queue: a refusal says when to ask again,
  with some jitter, so that all have the same chance. A reader that dies leaves nothing behind.
* Calls are spaced evenly. Reads of the last lines of a job that has ended may use a reserve that other reads may not.
* A 429 means that others use the quota too. After it, there are no reads for a while, and then half the rate. Each
  five minutes without another 429 double the rate again.

Within any 60 seconds, this machine makes at most the number of calls that the limit allows. Limitation: the budget does
not include other machines, other users of this machine, or containers that do not share the state directory. Each of
these has its own budget, and only a 429 slows them down.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mlengine import settings
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.state_dir import state_dir

log = logging.getLogger(__name__)

SETTING = "vertex_log_reads_per_minute"
# Seconds without a read after a 429; doubled for each further 429, up to a minute, the interval of the quota.
FIRST_PAUSE, LONGEST_PAUSE = 15.0, 60.0
RECOVERY_SECONDS = 300.0
# The time for which the default limit applies to a server without a configured limit after it has answered 429.
LEARNED_SECONDS = 600.0
_MOST_HALVINGS = 3
_JITTER_SECONDS = 0.25
_LOCK_SECONDS = 2.0
# Times that are further in the future than this were written before the clock was set back.
_FAR = 300.0


@dataclass
class _State:
    """The state of a budget. Times are in seconds since the epoch.

    :param next_at: the time at which the next call is due if calls are spaced evenly: the "theoretical arrival time" of
        the generic cell rate algorithm (ITU-T I.371).
    :param halvings: how often the rate was halved.
    """

    next_at: float = 0.0
    blocked_until: float = 0.0
    throttled_at: float = 0.0
    halvings: int = 0

    def at(self, now: float) -> _State:
        """The state at the time ``now``, with the halvings that have expired by then removed."""
        if max(self.next_at, self.blocked_until) > now + _FAR or self.throttled_at > now + _FAR:
            return _State()
        recovered = int((now - self.throttled_at) / RECOVERY_SECONDS)
        return _State(self.next_at, self.blocked_until, self.throttled_at, max(0, self.halvings - recovered))


_memory: dict[Path, _State] = {}
_memory_lock = threading.Lock()


class LogBudget:
    """The budget of one project.

    :param server: the URL of the server that is read.
    :param limit: the calls per minute; ``None`` for a server without a quota, as long as it does not answer 429.
    :param folder: the folder in which the processes of this machine share their state.
    """

    def __init__(
        self, server: str, project: str, *, limit: int | None, folder: Path, clock: Callable[[], float] = time.time
    ) -> None:
        digest = hashlib.sha256(f"{server}|{project}".encode()).hexdigest()[:16]
        self._path = folder / f"{digest}.json"
        self._limit, self._clock = limit, clock

    @classmethod
    def of(cls, server: str, project: str) -> LogBudget:
        """The budget for a project on ``server``, with the limit in the setting ``vertex_log_reads_per_minute``.

        A server with plain HTTP is an emulator, and has no quota by default.
        """
        limit: int | None = settings.get_int(SETTING)
        if server.startswith("http://") and settings.find(SETTING).is_default:
            limit = None
        return cls(server, project, limit=limit, folder=state_dir() / "log-reads")

    def take(self, *, urgent: bool = False) -> float:
        """Ask for permission to make one call.

        :param urgent: whether the call reads the last lines of a job that has ended.
        :returns: 0 if the call may be made now, and is counted; otherwise the seconds after which to ask again.
        """
        if self._limit is None and not self._path.exists() and self._path not in _memory:
            return 0.0
        with self._shared() as state:
            now = self._clock()
            limit = self._limit_now(state, now)
            if limit is None:
                return 0.0
            if state.blocked_until > now:
                return state.blocked_until - now + _jitter()
            burst = max(2, limit // 5)
            spacing = 60.0 / (limit - burst) * 2.0**state.halvings
            due = max(state.next_at, now)
            wait = due - now - spacing * (burst - 1 if urgent else 1)
            if wait > 0:
                return wait + _jitter()
            state.next_at = due + spacing
            return 0.0

    def throttled(self, retry_after: float | None = None) -> float:
        """Record that the service answered 429.

        :param retry_after: the seconds in the response's ``Retry-After``, if it has one.
        :returns: the seconds after which to ask again.
        """
        with self._shared() as state:
            now = self._clock()
            if state.blocked_until <= now:  # otherwise another reader has already recorded this
                known = self._limit_now(state, now) is not None
                state.halvings = min(state.halvings + 1, _MOST_HALVINGS) if known else 0
                pause = retry_after or min(FIRST_PAUSE * 2**state.halvings, LONGEST_PAUSE)
                state.blocked_until, state.throttled_at = now + min(pause, _FAR), now
                log.warning("Cloud Logging's quota of reads is exceeded; no log is read for %.0f s", pause)
            return state.blocked_until - now + _jitter()

    def _limit_now(self, state: _State, now: float) -> int | None:
        if self._limit is None and now - state.throttled_at < LEARNED_SECONDS:
            return int(settings.SETTINGS[SETTING].default)
        return self._limit

    @contextmanager
    def _shared(self) -> Iterator[_State]:
        """The state, read and written under the machine's lock; without a lock, the state of this process."""
        try:
            lock = FileLock.take(self._path, wait=_LOCK_SECONDS)
        except OSError as error:
            lock = None
            if self._path not in _memory:
                log.warning("%s: %s; the budget of log reads is this process's own", self._path, error)
        if lock is None:
            with _memory_lock:
                state = _memory.get(self._path, _State()).at(self._clock())
                yield state
                _memory[self._path] = state
            return
        with lock:
            before = _read(lock.fileno())
            state = before.at(self._clock())
            yield state
            if state != before:
                _write(lock.fileno(), state)


def _jitter() -> float:
    return random.uniform(0.0, _JITTER_SECONDS)  # noqa: S311 - spreads load, guards nothing


def _read(descriptor: int) -> _State:
    try:
        return _State(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):  # the file is new, or was truncated by a full disk
        return _State()


def _write(descriptor: int, state: _State) -> None:
    data = json.dumps(asdict(state)).encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))
