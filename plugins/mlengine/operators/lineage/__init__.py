"""OpenLineage events of the operators: the data that each task read and wrote, for the provider's listener.

If ``apache-airflow-providers-openlineage`` is installed and configured, its listener calls
``get_openlineage_facets_on_complete`` of a task that has ended, even if it was skipped or failed. The operators answer
with data that ``execute`` left in memory. They do not read from the bucket: the listener forks the task's process, and
two processes must not share a TLS connection.

:mod:`~mlengine.operators.lineage.datasets` maps dataset versions, packages, models and champions, and
:mod:`~mlengine.operators.lineage.tasks` the tasks. Both import OpenLineage when called, and only the provider calls
them.
"""
