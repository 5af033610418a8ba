"""The backend ``ray``: jobs on a Ray cluster, submitted through Ray's Jobs API.

Airflow's processes only make REST calls: nothing here imports ``ray`` there. In the cluster, a *driver*
(:mod:`mlengine.backends.ray.driver`) reserves a placement group and runs each replica in an actor. The driver is code
of this project, which :mod:`mlengine.backends.ray.shipping` sends to the cluster as a zip file.
"""
