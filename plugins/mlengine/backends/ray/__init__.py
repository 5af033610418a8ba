"""The backend ``ray``: jobs on a Ray cluster, submitted through Ray's Jobs API.

In Airflow's processes, only REST calls: nothing here imports ``ray`` there. In the cluster, a *driver*
(:mod:`mlengine.backends.ray.driver`) reserves a placement group and runs each replica in an actor. It is this project's
own code, which :mod:`mlengine.backends.ray.shipping` sends to the cluster as a zip file.
"""
