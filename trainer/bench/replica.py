"""``python -m bench.replica VARIANT …``: ``trainer.task`` with one of its measures against waste taken away again."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any


def _push_whole() -> None:
    """The dense layer's gradient is multiplied on the worker and sent whole: 12.8 MB instead of its factors' 1.7."""
    import tensorflow as tf

    from trainer import graph

    def outer_product(_weight: Any, inputs: Any, gradient: Any) -> Any:
        return tf.matmul(inputs, gradient, transpose_a=True)

    vars(graph).update(outer_product=outer_product)


def _pull_whole() -> None:
    """The dense layer's weights are pulled each step: 12.8 MB instead of inputs and outputs."""
    import tensorflow as tf

    from trainer import graph

    def dense(weight: Any, inputs: Any) -> Any:
        with tf.device(weight.device):
            value = weight.read_value()
        return tf.matmul(inputs, tf.identity(value))

    vars(graph).update(dense=dense)


def _all_threads() -> None:
    """Every replica takes all cores of the machine, as TensorFlow does unless told."""
    from trainer import cluster

    setattr(cluster.Cluster, "threads", lambda _self: os.cpu_count() or 1)  # noqa: B010  a type checker must not see it


VARIANTS = {
    "ours": (),
    "pull-whole": (_pull_whole,),
    "pull-and-push-whole": (_pull_whole, _push_whole),
    "plain": (_pull_whole, _push_whole, _all_threads),
}


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from trainer import task

    for change in VARIANTS[sys.argv[1]]:
        change()
    code = task.main(sys.argv[2:])
    logging.shutdown()
    return code


if __name__ == "__main__":
    os._exit(main())
