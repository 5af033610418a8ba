"""The steps of one trainer that have started but not finished."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from trainer.distributed.graph import Graph


class StepsInFlight:
    """A queue of running steps: while one waits for the parameter servers, the next computes.

    :param most: the maximum number of steps that run at once.
    """

    def __init__(self, session: Any, graph: Graph, most: int) -> None:
        self._session, self._graph = session, graph
        self._threads = ThreadPoolExecutor(most)
        self._steps: deque[Future[Any]] = deque()

    def start(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Start a step on one batch."""
        graph = self._graph
        feeds = {graph.images: images, graph.labels: labels}
        self._steps.append(self._threads.submit(self._session.run, graph.train, feeds))

    def finish(self) -> Any:
        """Wait for the oldest step. Returns its result or raises its error."""
        return self._steps.popleft().result()

    def __len__(self) -> int:
        return len(self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Abandon the steps that are still running; their sessions end or fail on their own."""
        self._threads.shutdown(wait=False, cancel_futures=True)
