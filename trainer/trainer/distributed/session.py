"""A trainer's TensorFlow session: its threads and time-outs, how it is opened and abandoned.

``operation_timeout_in_ms`` limits every run of an open session, but not the opening: TensorFlow contacts each parameter
server and waits for the response without a limit, even if the server is gone or hangs. So a session is opened in a
separate thread, which is abandoned if a server does not respond.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import tensorflow as tf

from trainer.config import Config
from trainer.devices import has_gpu
from trainer.distributed.cluster import Cluster
from trainer.distributed.graph import Graph

log = logging.getLogger(__name__)
v1 = tf.compat.v1
errors = tf.errors
# What a session says when the other side is gone, new, or hung.
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


def lanes(config: Config, cluster: Cluster) -> int:
    """Into how many parts that run side by side a step is cut: two a core, of 20 examples at least; one on one core,
    and one on a GPU.
    """
    threads = config.threads or cluster.threads()
    return 1 if threads == 1 or has_gpu() else max(1, min(2 * threads, config.batch_size // 20))


def session_config(config: Config, cluster: Cluster) -> Any:
    """Configure threads, the timeout of a step, and connections to the parameter servers only.

    Cores are used by lanes side by side first; an operation is spread over several only where cores are left.
    """
    threads = config.threads or cluster.threads()
    spread = max(1, threads // lanes(config, cluster))
    if cluster.job == "ps":  # works for all trainers at once
        threads = spread = config.threads or os.cpu_count() or 1
    proto = v1.ConfigProto(intra_op_parallelism_threads=spread, inter_op_parallelism_threads=threads)
    # On a GPU, the counters and the operations on them have no kernel.
    proto.allow_soft_placement = has_gpu()
    if cluster.distributed:
        proto.operation_timeout_in_ms = int(config.step_timeout * 1000)
        # Without filters, a session waits for every task of the cluster, the dead ones too.
        servers = [] if cluster.job == "ps" else ["/job:ps"]
        proto.device_filters.extend([*servers, f"/job:{cluster.job}/task:{cluster.index}"])
    return proto


def limit_threads(config: Config, cluster: Cluster) -> None:
    """The same limits for evaluation and export, which run outside of sessions."""
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


def open_session(target: str, graph: Graph, config: Any, check: Callable[[], None]) -> Any:
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
            return session


def close_session(session: Any) -> None:
    """Close a session in another thread, because closing may hang together with a server."""
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
