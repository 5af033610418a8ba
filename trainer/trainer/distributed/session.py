"""A trainer's TensorFlow session: its threads and timeouts, and how it is opened and abandoned.

``operation_timeout_in_ms`` limits the runs of an open session. In two cases TensorFlow ignores it and waits forever for
a server that has exited or hangs: when it opens the session, and in the first run of each kind, which registers the
graph of the run on the servers. Sessions are therefore opened and run in threads that are abandoned after the limit.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from trainer.config import Config
from trainer.devices import compute_type, has_gpu
from trainer.distributed.cluster import Cluster
from trainer.distributed.graph import Graph

log = logging.getLogger(__name__)
v1 = tf.compat.v1
errors = tf.errors
# The errors of a session whose server has exited, restarted or hung.
LOST = (
    errors.UnavailableError,
    errors.AbortedError,
    errors.FailedPreconditionError,
    errors.CancelledError,
    errors.DeadlineExceededError,
    errors.NotFoundError,
    errors.UnknownError,
    errors.InternalError,
)
POLL = 0.3
# Extra seconds beyond TensorFlow's own limit, because its own error, if it raises one, is more specific.
GRACE = 2.0
_THREADS = 64  # maximum per session: one for each concurrent run


def lanes(config: Config, cluster: Cluster) -> int:
    """The number of parts of a batch that run in parallel.

    Two per core, with at least 20 examples each; one if there is only one core, or a GPU.
    """
    threads = config.threads or cluster.threads()
    return 1 if threads == 1 or has_gpu() else max(1, min(2 * threads, config.batch_size // 20))


def session_config(config: Config, cluster: Cluster) -> Any:
    """Configure threads, the timeout of a step, and connections to the parameter servers only.

    Cores are assigned to lanes first. A single operation uses several cores only if there are more cores than lanes.
    """
    threads = config.threads or cluster.threads()
    spread = max(1, threads // lanes(config, cluster))
    if cluster.job == "ps":  # serves all trainers at once
        threads = spread = config.threads or os.cpu_count() or 1
    proto = v1.ConfigProto(intra_op_parallelism_threads=spread, inter_op_parallelism_threads=threads)
    # The counters and the operations on them have no GPU kernel.
    proto.allow_soft_placement = has_gpu()
    if cluster.distributed:
        proto.operation_timeout_in_ms = int(config.step_timeout * 1000)
        if compute_type(config.precision) == tf.bfloat16:
            # In a cluster, TensorFlow 2.21 fuses convolution, bias and ReLU into an operation without this type.
            proto.graph_options.rewrite_options.remapping = rewriter_config_pb2.RewriterConfig.OFF
        # Without filters, a session waits for every task of the cluster, including those that have exited.
        servers = [] if cluster.job == "ps" else ["/job:ps"]
        proto.device_filters.extend([*servers, f"/job:{cluster.job}/task:{cluster.index}"])
    return proto


def limit_threads(config: Config, cluster: Cluster) -> None:
    """Apply the same thread limits to evaluation and export, which run outside of sessions."""
    threads = config.threads or cluster.threads()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))


def start_server(config: Config, cluster: Cluster) -> Any:
    """This replica's TensorFlow server; listens on the port that ``TF_CONFIG`` gives it."""
    return v1.train.Server(
        v1.train.ClusterSpec(cluster.servers),
        job_name=cluster.job,
        task_index=cluster.index,
        config=session_config(config, cluster),
    )


class LimitedSession:
    """A session whose runs finish or fail in time, even if a parameter server hangs.

    :param seconds: default time limit of a run; ``None`` for no limit.
    """

    def __init__(self, session: Any, seconds: float | None) -> None:
        self._session, self._seconds = session, seconds
        # Idle threads are reused. A thread whose run hangs is lost, and its session is replaced.
        self._threads = ThreadPoolExecutor(_THREADS)

    def run(self, fetches: Any, feeds: Any = None, *, seconds: float | None = None) -> Any:
        """Like the ``run`` of a TensorFlow session, with a time limit.

        :param seconds: limit of this run.
        :raises DeadlineExceededError: no result within the limit.
        """
        limit = seconds or self._seconds
        if limit is None:
            return self._session.run(fetches, feeds)
        options = None if seconds is None else v1.RunOptions(timeout_in_ms=int(seconds * 1000))
        result = self._threads.submit(self._session.run, fetches, feeds, options)
        try:
            return result.result(limit + GRACE)
        except TimeoutError:
            raise errors.DeadlineExceededError(None, None, f"no result within {limit:.0f} s") from None

    def close(self) -> None:
        """Close the session. This may hang if a server hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()


def open_session(target: str, graph: Graph, config: Any, check: Callable[[], None]) -> LimitedSession:
    """Open a session, and wait until all parameter servers have responded.

    :param check: called several times per second while waiting; raises to give up.
    """
    session = v1.Session(target, graph=graph.graph, config=config)
    met: Future[None] = Future()
    threading.Thread(target=_meet, args=(session, graph, met), daemon=True).start()
    while True:
        try:
            met.result(POLL)
        except TimeoutError:
            check()
        else:
            return LimitedSession(session, config.operation_timeout_in_ms / 1000 or None)


def close_session(session: Any) -> None:
    """Close a session in another thread, because closing hangs if a server hangs."""
    if session is not None:
        threading.Thread(target=_close, args=(session,), daemon=True).start()


def _meet(session: Any, graph: Graph, met: Future[None]) -> None:
    try:
        session.run(list(graph.phases_known))
    except Exception as error:  # noqa: BLE001  re-raised in the thread that waits for the result
        met.set_exception(error)
    else:
        met.set_result(None)


def _close(session: Any) -> None:
    try:
        session.close()
    except errors.OpError as error:
        log.debug("closing a session: %s", error)
