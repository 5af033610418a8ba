"""Data types and rules without I/O. This package imports neither Airflow, nor TensorFlow, nor Google's libraries."""
