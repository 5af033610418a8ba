"""Runs a trainer's code on this machine: interpreters, environments, processes.

* :mod:`~mlengine.runtime.venv`: builds the trainer's environment once per package digest, with
  :mod:`~mlengine.runtime.uv`
* :mod:`~mlengine.runtime.processes`: finds and ends processes, including orphans
* :mod:`~mlengine.runtime.file_lock`, :mod:`~mlengine.runtime.json_files`: files that several processes share

This package does not depend on jobs and models. The local backend runs replicas with it, and validation runs models.
"""
