"""Runs a trainer's code on this machine: interpreters, environments, processes.

* :mod:`~mlengine.runtime.venv`: the trainer's environment, built once per package digest, by
  :mod:`~mlengine.runtime.uv`
* :mod:`~mlengine.runtime.processes`: find and end processes, orphans included
* :mod:`~mlengine.runtime.file_lock`, :mod:`~mlengine.runtime.json_files`: files that several processes share

Independent of jobs and models. The local backend runs replicas with it; validation runs models with it.
"""
