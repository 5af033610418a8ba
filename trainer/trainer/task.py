"""``python -m trainer.task``: run the replica that ``TF_CONFIG`` names; without ``TF_CONFIG``, train in one process.

Exit codes: 0 success; 1 an error that a retry does not fix; 75 retry; 143 stopped by SIGTERM, retry.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Sequence

from trainer.config import Config, parse
from trainer.distributed.cluster import Cluster
from trainer.distributed.signals import Stop
from trainer.errors import EXIT_ERROR, EXIT_OK, TrainerError, UsageError

log = logging.getLogger("trainer.task")


def main(argv: Sequence[str] | None = None) -> int:
    """Run this replica. Returns its exit code."""
    try:
        cluster = Cluster.from_env()
        logging.basicConfig(
            level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s {cluster.name} %(levelname)s %(message)s"
        )
        config = parse(sys.argv[1:] if argv is None else argv)
        _run(config, cluster)
    except TrainerError as error:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        log.error("%s (exit code %d)", error, error.exit_code)  # noqa: TRY400  the message is for the user
        return error.exit_code
    except Exception:  # all others: an ordinary exit would hang or crash because of TensorFlow's server threads
        log.exception("unexpected error (exit code %d)", EXIT_ERROR)
        return EXIT_ERROR
    return EXIT_OK


def _run(config: Config, cluster: Cluster) -> None:
    stop = Stop()
    stop.install()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keeps TensorFlow from importing Keras, which is not used here and takes a seventh of TensorFlow's import time.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if len(cluster.trainers) > 1 and not cluster.distributed and config.strategy == "async":
        raise UsageError("a cluster with workers needs parameter servers, or --strategy sync")
    # Imported here, so that an invalid argument is reported before the import of TensorFlow, which takes seconds. The
    # garbage collector would take a fifth of that time and find nothing.
    gc.disable()
    from trainer import devices

    gc.freeze()
    gc.enable()
    devices.check(allow_cpu=config.allow_cpu)
    if config.strategy == "sync" and cluster.job != "evaluator":
        from trainer.distributed.sync import train

        train(config, cluster, stop)
    elif cluster.job == "ps":
        from trainer.distributed.ps import serve

        serve(config, cluster, stop)
    elif cluster.job == "evaluator":
        from trainer.evaluator import evaluate

        evaluate(config, cluster, stop)
    else:
        from trainer.loop import Trainer

        Trainer(config, cluster, stop).run()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # TensorFlow's server threads cannot be stopped; an ordinary exit would wait for them, or crash.
    os._exit(code)
