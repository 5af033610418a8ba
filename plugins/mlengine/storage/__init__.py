"""Cloud Storage behind a small interface: create once, compare and swap, list, copy trees.

* :mod:`~mlengine.storage.client`: the interface
* :mod:`~mlengine.storage.retries`: which errors are retried, and our names for them
* :mod:`~mlengine.storage.credentials`: from an Airflow connection or the environment to a client

Google's library is imported when the first call is made.
"""
