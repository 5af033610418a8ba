"""mlengine: retrain models on a schedule with distributed jobs, from Airflow.

This package imports nothing heavy: a DAG file may import it for the price of ``airflow.sdk`` alone.
"""

from __future__ import annotations

__version__ = "0.1.0"
