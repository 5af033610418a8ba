"""OpenLineage events of the operators: what each task read and wrote, for the provider's listener.

With ``apache-airflow-providers-openlineage`` installed and configured, its listener calls
``get_openlineage_facets_on_complete`` of a task that has ended, also of a skipped or failed one. The operators answer
from what ``execute`` left in memory. They do not read from the bucket: the listener forks the task's process, and two
processes must not share a TLS connection.

:mod:`~mlengine.operators.lineage.datasets` maps dataset versions, packages, models and champions, and
:mod:`~mlengine.operators.lineage.tasks` the tasks. Both import OpenLineage when called, and only the provider calls
them.
"""
