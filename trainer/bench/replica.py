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


def _prefetch() -> None:
    """The convolutions' weights of the next step are pulled while this one computes: one step staler, no waiting."""
    import tensorflow as tf

    from trainer import graph

    read, apply = graph._on, graph._Adam.apply
    pulls: list[Any] = []

    def pull(variable: Any, action: Any) -> Any:
        if not variable.name.startswith(("conv", "dense")):
            return read(variable, action)
        local = graph._variable("pulled/" + variable.name.partition(":")[0], variable.shape, tf.float32)
        value = tf.cond(local.is_initialized(), local.read_value, lambda: read(variable, variable.read_value))
        with tf.control_dependencies([value]):
            pulls.append(local.assign(read(variable, variable.read_value), read_value=False))
        return value

    def apply_and_pull(self: Any, shard: tuple[Any, Any, Any], gradient: Any) -> Any:
        return tf.group(apply(self, shard, gradient), *pulls)

    vars(graph).update(_on=pull)
    graph._Adam.apply = apply_and_pull


def _one_step_each() -> None:
    """A trainer waits for each step before it begins the next."""
    from trainer import cluster

    setattr(cluster.Cluster, "steps_each", 1)  # noqa: B010  a type checker must not see it


def _no_spinning() -> None:
    """Threads that have nothing to do sleep at once; TensorFlow's look around for work for a while first."""
    from trainer import loop, session

    config = session.session_config

    def session_config(*args: Any) -> Any:
        proto = config(*args)
        proto.experimental.disable_thread_spinning = True
        return proto

    for module in (session, loop):
        vars(module).update(session_config=session_config)


VARIANTS = {
    "no-spinning": (_no_spinning,),
    "ours": (),
    "one-step": (_one_step_each,),
    "prefetch": (_one_step_each, _prefetch),
    "pull-whole": (_one_step_each, _pull_whole),
    "pull-and-push-whole": (_one_step_each, _pull_whole, _push_whole),
    "plain": (_one_step_each, _pull_whole, _push_whole, _all_threads),
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
