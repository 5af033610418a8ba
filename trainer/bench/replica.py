"""``python -m bench.replica VARIANT …``: run ``trainer.task`` with some of its optimisations disabled."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any


def _push_whole() -> None:
    """Compute the dense layer's gradient on the worker, and send 12.8 MB instead of the 1.7 MB of its factors."""
    from trainer import mnist
    from trainer.distributed import graph

    def outer_product(_weight: Any, inputs: Any, gradient: Any) -> Any:
        return mnist.product(inputs, gradient, transpose_a=True)

    vars(graph).update(outer_product=outer_product)


def _pull_whole() -> None:
    """Pull the dense layer's weights in each step: 12.8 MB instead of inputs and outputs."""
    import tensorflow as tf

    from trainer import mnist
    from trainer.distributed import graph

    def dense(weight: Any, inputs: Any) -> Any:
        with tf.device(weight.device):
            value = weight.read_value()
        return mnist.product(inputs, tf.identity(value))

    vars(graph).update(dense=dense)


def _all_threads() -> None:
    """Let every replica use all cores of the machine, which is TensorFlow's default."""
    from trainer.distributed import cluster

    setattr(cluster.Cluster, "threads", lambda _self: os.cpu_count() or 1)  # noqa: B010  a type checker must not see it


def _one_piece() -> None:
    """Keep the dense layer of a parameter server in one piece, which is larger than a core's cache."""
    from trainer.distributed import graph

    vars(graph).update(PIECES=1)


def _each_alone() -> None:
    """Send every small weight and every gradient as a separate message."""
    import tensorflow as tf

    from trainer.distributed import graph

    def pull(variables: dict[str, Any]) -> dict[str, Any]:
        return {name: tf.identity(graph._on(weight, weight.read_value)) for name, weight in variables.items()}

    def push(gradients: list[Any], _device: str) -> list[Any]:
        return gradients

    vars(graph).update(pull=pull, push=push)


def _one_step_each() -> None:
    """Make a trainer wait for each step before it starts the next one."""
    from trainer.distributed import cluster

    setattr(cluster.Cluster, "steps_each", 1)  # noqa: B010  a type checker must not see it


def _no_spinning() -> None:
    """Let idle threads sleep at once; by default, TensorFlow's threads spin for a while first."""
    from trainer import loop
    from trainer.distributed import session

    config = session.session_config

    def session_config(*args: Any) -> Any:
        proto = config(*args)
        proto.experimental.disable_thread_spinning = True
        return proto

    for module in (session, loop):
        vars(module).update(session_config=session_config)


BEFORE_LAST = (_each_alone,)
BEFORE_PIECES = (*BEFORE_LAST, _one_piece)
BEFORE_TWO_STEPS = (*BEFORE_PIECES, _one_step_each)
VARIANTS = {
    "ours": (),
    "no-spinning": (_no_spinning,),
    "each-alone": BEFORE_LAST,
    "one-piece": BEFORE_PIECES,
    "one-step": BEFORE_TWO_STEPS,
    "pull-whole": (*BEFORE_TWO_STEPS, _pull_whole),
    "pull-and-push-whole": (*BEFORE_TWO_STEPS, _pull_whole, _push_whole),
    "plain": (*BEFORE_TWO_STEPS, _pull_whole, _push_whole, _all_threads),
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
