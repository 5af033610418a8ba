"""The life of a training job, whichever backend runs it.

* :mod:`~mlengine.jobs.submission`: claim, find, submit, record: at most one paid job
* :mod:`~mlengine.jobs.job_dir`: the job's directories in the bucket
* :mod:`~mlengine.jobs.polling`: one poller for all waiting jobs; :mod:`~mlengine.jobs.watch`: one job's view of it
* :mod:`~mlengine.jobs.deadlines`: when a wait has to end its job
* :mod:`~mlengine.jobs.log_forwarding`: replica logs into the task's log; :mod:`~mlengine.jobs.progress`: steps and ETA

Imports no Airflow at module level. Operators, the sensor, triggers, the command line and the emulator build on it.
"""
