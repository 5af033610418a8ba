"""What an operator said in its log, line by line."""

from __future__ import annotations

import logging


class Told(logging.Handler):
    """Give it to the operator's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
