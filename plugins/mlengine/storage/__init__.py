"""Cloud Storage behind a small interface: create once, compare and swap, list, copy trees.

* :mod:`~mlengine.storage.client`: the interface
* :mod:`~mlengine.storage.retries`: the errors that are retried, and their conversion to this project's errors
* :mod:`~mlengine.storage.credentials`: creates a client from an Airflow connection or the environment

Google's library is imported when the first call is made.
"""
