"""``mlengine emulator``: emulates the training APIs of Vertex AI and ML Engine on loopback, for Google's own clients.

* :mod:`~mlengine.emulator.server`, :mod:`~mlengine.emulator.grpc_server`: the HTTP and gRPC servers
* :mod:`~mlengine.emulator.vertex_api`, :mod:`~mlengine.emulator.mlengine_api`, :mod:`~mlengine.emulator.models_api`,
  :mod:`~mlengine.emulator.log_entries`: the methods of each API
* :mod:`~mlengine.emulator.engine`: the jobs, in a state directory
* :mod:`~mlengine.emulator.replica`: starts one replica as the service would

An API module converts a request to a :class:`~mlengine.core.spec.TrainingSpec`. The engine submits it to a training
backend (``local`` by default), which runs it as real processes.
"""
