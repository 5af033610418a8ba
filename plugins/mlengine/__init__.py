"""mlengine: retrain models on a schedule with distributed jobs, from Airflow.

This package imports no expensive modules, so importing it in a DAG file costs no more than ``airflow.sdk``.
"""

from __future__ import annotations

__version__ = "0.1.0"
