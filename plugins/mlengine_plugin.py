"""What Airflow's plugin loader finds in this folder: the plugin, once.

Where mlengine is installed as a package too, its entry point registers the plugin already, and a second of the same
name would be reported as an import error.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

try:
    distribution("mlengine")
except PackageNotFoundError:
    from mlengine.plugin import MlenginePlugin

    __all__ = ["MlenginePlugin"]
