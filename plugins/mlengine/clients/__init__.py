"""Clients of servers that people run beside the plugin: Airflow's REST API and TensorBoard.

They know URLs and credentials, and nothing of jobs or models. The command line, the listeners, the test helpers and the
links use them; they import only ``core`` and ``settings``.
"""
