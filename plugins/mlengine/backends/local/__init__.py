"""The local backend: a launcher process per job, an environment per set of packages, a process per replica.

Read in this order: ``record`` (files on disk), ``launcher`` (a job from queue to final state), ``supervisor`` (the
replicas), ``backend`` (the interface). ``docs/local-backend.md`` describes what survives which crash.
"""
