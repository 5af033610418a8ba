"""A log handler that records messages."""

from __future__ import annotations

import logging


class LogRecorder(logging.Handler):
    """Records the messages of the logger to which it is added."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
