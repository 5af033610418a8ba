"""Airflow listeners: what happens when a task or a run ends, and when a component starts.

* :mod:`~mlengine.listeners.job_cleanup`: cancels the jobs of a run that ended another way than through its tasks,
  with :mod:`~mlengine.listeners.cleanup_process` as the process that does it
* :mod:`~mlengine.listeners.run_notes`: the note on each DAG run
* :mod:`~mlengine.listeners.preload`: imports before a component forks

Only ``plugin`` imports this package.
"""
