"""The job file: YAML in, a :class:`~mlengine.core.spec.TrainingSpec` out, each error with its line and a hint.

* :mod:`~mlengine.core.job_file.parse`: ``trainingInput:``; :mod:`~mlengine.core.job_file.worker_pools`:
  ``workerPoolSpecs:``
* :mod:`~mlengine.core.job_file.fields`: types and limits of single fields
* :mod:`~mlengine.core.job_file.located`: values that know their line
* :mod:`~mlengine.core.job_file.tiers`, :mod:`~mlengine.core.job_file.tpus`: scale tiers and TPU shapes, as data

Reads no files: callers pass the text.
"""
