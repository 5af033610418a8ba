"""The lifecycle of a training job, independent of the backend that runs it.

* :mod:`~mlengine.jobs.submission`: claims, finds, submits and records jobs, so that at most one is billed
* :mod:`~mlengine.jobs.job_dir`: the job's directories in the bucket
* :mod:`~mlengine.jobs.polling`: one poller for all waiting jobs; :mod:`~mlengine.jobs.watch`: one job's view of it
* :mod:`~mlengine.jobs.deadlines`: the times at which a wait must end its job
* :mod:`~mlengine.jobs.log_forwarding`: forwards replica logs to the task's log; :mod:`~mlengine.jobs.progress`: steps
  and ETA

The package does not import Airflow at module level. Operators, the sensor, triggers, the command line and the emulator
use it.
"""
