"""Training with several replicas: the cluster from ``TF_CONFIG``, parameter servers, sessions, and lost replicas.

* :mod:`~trainer.distributed.cluster`: roles and addresses
* :mod:`~trainer.distributed.graph`: the training graph, with weights on the parameter servers
* :mod:`~trainer.distributed.session`, :mod:`~trainer.distributed.in_flight`: TensorFlow sessions and their steps
* :mod:`~trainer.distributed.peers`: waiting for the other replicas, with a limit
* :mod:`~trainer.distributed.ps`: the parameter server's own loop
* :mod:`~trainer.distributed.sync`: the synchronous alternative, all-reduce
* :mod:`~trainer.distributed.signals`: SIGTERM

A trainer that runs in a single process needs none of this.
"""
