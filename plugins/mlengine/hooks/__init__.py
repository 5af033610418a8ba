"""The Airflow connection type ``mlengine``, which contains credentials and the location of training jobs."""
