"""Writes the job's state, and its log in chunks, to the job's folder in the bucket. The driver uses this module.

A thread writes, so that a slow bucket does not delay the replicas: every second at first, every ten seconds when the
job has run for ten minutes, and earlier if there is much to write. While the bucket does not respond, lines are kept in
memory up to a limit.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from typing import Any, Protocol

from mlengine.backends.ray.record import chunk_uri, state_uri
from mlengine.core import plaintext
from mlengine.core.job import JobState
from mlengine.core.layout import join
from mlengine.core.plural import number_of

log = logging.getLogger(__name__)

CHUNK_LINES = 1000
_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 1 << 20
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 10.0  # limits of the time between two chunks
_AGE_PER_SECOND = 60.0  # the time between two chunks is the job's age divided by this
_MOST_LINES = 100_000  # limit of the lines that are kept while the bucket does not respond
_LAST_SECONDS = 300.0  # time limit for writing the last lines and the final state


class Tail:
    """The last lines of one log, limited in size."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._cut = False

    def add(self, text: str) -> None:
        """Add a line."""
        self._lines.append(f"{text}\n".encode())
        self._size += len(self._lines[-1])
        while self._size > _TAIL_BYTES:
            self._size -= len(self._lines.popleft())
            self._cut = True

    def data(self) -> bytes:
        """The lines as bytes."""
        note = b"[the beginning is in the job's folder ray/, in pieces]\n" if self._cut else b""
        return note + b"".join(self._lines)


class Writes(Protocol):
    """The one method of :class:`mlengine.storage.client.Storage` that this module uses."""

    def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object."""


class Journal:
    """The state and the log of one job. :meth:`close` writes the rest.

    :param own: the job's folder in its job dir.
    :param logs: a folder to which the end of each replica's log is written when the job has ended.
    """

    def __init__(self, storage: Writes, own: str, logs: str) -> None:
        self._storage, self._own, self._logs = storage, own, logs
        self._tails: dict[str, Tail] = {}
        self._lines: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self._chunk = 0
        self._pending: list[dict[str, Any]] = []  # the lines of the chunk that is being written
        self._state: dict[str, Any] = {}
        self._written: bytes = b""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def line(self, replica: str, text: str) -> None:
        """Add one line to the log."""
        text = plaintext.line(text)
        with self._lock:
            self._tails.setdefault(replica, Tail()).add(text)
            if len(self._lines) >= _MOST_LINES:
                self._dropped += 1
                return
            self._lines.append({"replica": replica, "text": text, "time": round(time.time(), 3)})
            if len(self._lines) >= CHUNK_LINES:
                self._wake.set()

    def say(self, text: str) -> None:
        """Add lines to the log as output of the driver."""
        for line in text.splitlines():
            self.line("launcher", line)
        log.info("%s", text)

    def begin(self, state: JobState, detail: str, **more: Any) -> None:
        """Write the first state, and return when it is in the bucket.

        :raises StorageError: the state could not be written.
        """
        with self._lock:
            self._state = {"state": state.value, "detail": detail, **more}
            first = json.dumps(self._state).encode()
        self._storage.write(state_uri(self._own), first)
        self._written = first

    def state(self, state: JobState, detail: str, **more: Any) -> None:
        """Set the job's state. It is written soon; if several states follow each other, perhaps only the last is."""
        with self._lock:
            self._state |= {"state": state.value, "detail": detail, **more}
        self._wake.set()

    def close(self) -> bool:
        """Write the last lines, then the last state. Return whether that succeeded in time."""
        self._closing = True
        self._wake.set()
        self._thread.join(_LAST_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = _SHORTEST_SECONDS
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            closing = self._closing
            try:
                if closing:
                    self._write_tails()
                self._write()
            except Exception:
                # Errors of every type are caught: without this thread, the job would never end.
                log.exception("cannot write to the bucket")
                pause = min(2 * pause, 30.0)
                time.sleep(1.0)
                continue
            if closing:
                return
            age = time.monotonic() - self._began
            pause = min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, age / _AGE_PER_SECOND))
            time.sleep(_SHORTEST_SECONDS)  # Cloud Storage limits writes of one object to one a second

    def _write_tails(self) -> None:
        while self._tails:
            replica, tail = next(iter(self._tails.items()))
            self._storage.write(join(self._logs, f"{replica}.log"), tail.data(), "text/plain; charset=utf-8")
            del self._tails[replica]

    def _write(self) -> None:
        """Write the log, then the state: a client that sees that the job has ended can read its last lines."""
        with self._lock:
            state = json.dumps(self._state).encode()
        while lines := self._next_chunk():
            # A chunk must have the same content however often it is written: a reader may have seen it already.
            data = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
            self._storage.write(chunk_uri(self._own, self._chunk), data.encode(), "application/x-ndjson")
            self._chunk += 1
            self._pending = []
        if self._state and state != self._written:
            self._storage.write(state_uri(self._own), state)
            self._written = state

    def _next_chunk(self) -> list[dict[str, Any]]:
        size = 0
        with self._lock:
            if self._dropped and not self._pending:
                text = f"{number_of(self._dropped, 'line')} dropped here, because the bucket did not respond"
                self._lines.append({"replica": "launcher", "text": text, "time": time.time()})
                self._dropped = 0
            if not self._pending:
                while self._lines and len(self._pending) < CHUNK_LINES and size < _CHUNK_BYTES:
                    self._pending.append(self._lines.popleft())
                    size += len(self._pending[-1]["text"])
            return self._pending
