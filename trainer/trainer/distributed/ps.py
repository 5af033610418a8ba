"""A parameter server: stores its part of the weights, applies the trainers' gradients, and exits after the chief.

TensorFlow's ``server.join()`` never returns, so this process polls its ``phase`` variable instead. It exits

1. when the phase is DONE or FAILED, which the chief writes last;
2. after SIGTERM, but while the chief is running it waits a few seconds, so that the chief can save a checkpoint first;
3. if the chief has been unreachable for longer than the patience.
"""

from __future__ import annotations

import logging
import time

import tensorflow as tf

from trainer.config import Config
from trainer.distributed import graph as graphs
from trainer.distributed.cluster import Cluster, is_listening
from trainer.distributed.session import session_config, start_server
from trainer.distributed.signals import Stop
from trainer.errors import PreemptedError, ReplicaLostError, TrainerError

log = logging.getLogger(__name__)
POLL = 0.25
CHIEF_POLL = 2.0
LINGER = 3.0  # seconds after a failure, so that the workers can read the phase
GRACE = 10.0  # seconds after SIGTERM, for the chief's last checkpoint


def serve(config: Config, cluster: Cluster, stop: Stop) -> None:
    """Run until one of the three conditions above is met.

    :raises TrainerError: the chief has marked the training as failed.
    :raises ReplicaLostError: the chief is unreachable.
    :raises PreemptedError: SIGTERM was received.
    """
    server = start_server(config, cluster)
    log.info("parameter server at %s", cluster.address("ps", cluster.index))
    graph, phase, known = graphs.build_phase(cluster)
    session = tf.compat.v1.Session(server.target, graph=graph, config=session_config(config, cluster))
    chief = cluster.address(cluster.chief_job, 0)
    seen = asked = time.monotonic()
    while True:
        value = int(session.run(phase)) if session.run(known) else graphs.NEW
        if value == graphs.DONE:
            log.info("the chief is done")
            return
        if value == graphs.FAILED:
            time.sleep(LINGER)
            raise TrainerError("the chief said that the training has failed")
        if asked < time.monotonic() - CHIEF_POLL or stop.asked:
            asked = time.monotonic()
            if is_listening(chief):
                seen = asked
        _check(config, chief, seen)
        if stop.asked:
            _wait_for_chief(chief)
            raise PreemptedError("SIGTERM: stopped")
        stop.sleep(POLL)


def _check(config: Config, chief: str, seen: float) -> None:
    gone = time.monotonic() - seen
    if gone > config.patience:
        raise ReplicaLostError(f"gave up after {gone:.0f} s without the chief at {chief}")


def _wait_for_chief(chief: str) -> None:
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and is_listening(chief):
        time.sleep(POLL)
