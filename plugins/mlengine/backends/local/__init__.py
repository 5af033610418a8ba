"""The cloud's contract on one machine: a detached launcher a job, an environment of its own, a process a replica.

Read in this order: ``record`` (what is on disk), ``launcher`` (the life of a job), ``supervisor`` (the cluster),
``backend`` (the six verbs). ``docs/local-backend.md`` says what survives which crash.
"""
