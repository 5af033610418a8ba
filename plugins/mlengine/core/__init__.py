"""The pure core: words and rules, no I/O. Imports neither Airflow, nor TensorFlow, nor Google's libraries."""
