"""The job file: converts YAML to a :class:`~mlengine.core.spec.TrainingSpec`. Each error has its line and a hint.

* :mod:`~mlengine.core.job_file.parse`: ``trainingInput:``; :mod:`~mlengine.core.job_file.worker_pools`:
  ``workerPoolSpecs:``
* :mod:`~mlengine.core.job_file.fields`: types and limits of single fields
* :mod:`~mlengine.core.job_file.located`: values with their line numbers
* :mod:`~mlengine.core.job_file.tiers`, :mod:`~mlengine.core.job_file.tpus`: scale tiers and TPU shapes, as data

This package reads no files: callers pass the text.
"""
