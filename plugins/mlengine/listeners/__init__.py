"""Airflow listeners, which run when a task or a run ends, and when a component starts.

* :mod:`~mlengine.listeners.job_cleanup`: finds the jobs of a run that did not end through its tasks;
  :mod:`~mlengine.listeners.cleanup_process` is the process that cancels them
* :mod:`~mlengine.listeners.installation`: creates the id of the Airflow installation
* :mod:`~mlengine.listeners.run_notes`: writes the note on each DAG run
* :mod:`~mlengine.listeners.preload`: imports modules before a component forks

Only ``plugin`` imports this package.
"""
