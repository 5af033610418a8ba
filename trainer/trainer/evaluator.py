"""The evaluator: measures each checkpoint on the held-out set while the others train.

It takes checkpoints from the train dir and is not part of TensorFlow's cluster. If the ``TF_CONFIG`` of all replicas
lists an evaluator, the chief leaves all evaluations but the last to it. If the cluster does not list it, the chief does
not know about it; the evaluator then writes to ``eval/`` below the train dir, so that it does not overwrite the
chief's results.
"""

from __future__ import annotations

import logging
import time

from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.distributed.session import limit_threads
from trainer.distributed.signals import Stop
from trainer.errors import DamagedError, PreemptedError, ReplicaLostError, StorageError
from trainer.files import manifest
from trainer.files.checkpoint import Checkpoints
from trainer.files.dataset import open_dataset
from trainer.files.reports import Summaries, append_metrics, read_progress
from trainer.files.storage import Store, open_store
from trainer.model import LocalModel

log = logging.getLogger(__name__)
POLL = 1.0


def evaluate(config: Config, cluster: Cluster, stop: Stop) -> None:
    """Evaluate new checkpoints until the one of ``--max_steps``, or the exported model, exists.

    :raises ReplicaLostError: neither a new checkpoint nor progress for longer than the patience.
    :raises PreemptedError: SIGTERM was received.
    """
    limit_threads(config, cluster)
    heldout = open_dataset(config.dataset).load("heldout")
    train = open_store(config.log_dir)
    checkpoints = Checkpoints(train)
    eval_dir = "" if cluster.has_evaluator else "/eval"
    output, events = open_store(config.log_dir + eval_dir), open_store(config.summary_dir + eval_dir)
    models = open_store(config.model_dir)
    summaries, model, done, alive = Summaries(events), LocalModel(), -1, time.monotonic()
    progress = None
    while not stop.asked:
        newest = next(reversed(checkpoints.list()), None)
        if newest is not None and newest.step >= config.max_steps:
            log.info("the training is over; its last evaluation is the chief's")
            return
        if newest is not None and newest.step > done:
            done = newest.step
            try:
                values = checkpoints.load(newest)
            except StorageError as error:
                log.warning("checkpoint %s went away: %s", newest.name, error)
                continue
            model.load(values)
            result = model.evaluate(heldout)
            append_metrics(output, done, None, result, last=config.max_steps)
            summaries.write(done, train_loss=None, rate=None, evaluation=result, values=values, heldout=heldout)
            log.info("step %d: held-out accuracy %.4f, loss %.4f", done, result.accuracy, result.loss)
            alive = time.monotonic()
        elif _exported(models, config):
            return
        if time.monotonic() - alive > config.patience:
            before, progress = progress, read_progress(train)
            if progress is None or progress == before:
                raise ReplicaLostError(f"gave up after {config.patience:.0f} s without a new checkpoint from the chief")
            log.info("no new checkpoint for %.0f s, but the chief is at step %s", config.patience, progress.get("step"))
            alive = time.monotonic()
        stop.sleep(POLL)
    raise PreemptedError("SIGTERM: stopped")


def _exported(models: Store, config: Config) -> bool:
    try:
        found = manifest.read(models, "")
    except DamagedError:
        return False  # the chief replaces it
    return found is not None and int(found.get("step", 0)) >= config.max_steps
