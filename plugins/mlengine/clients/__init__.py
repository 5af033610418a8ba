"""Clients of other services: Airflow's REST API, and TensorBoard's event files.

The command line, the listeners, the links and the test support use these clients, which import only ``core``,
``settings`` and ``storage``.
"""
