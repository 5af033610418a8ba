"""What Airflow's plugin loader finds in this folder: the plugin, once.

Where mlengine is installed as a package too, its entry point registers the plugin already, and a second of the same
name would be reported as an import error. Every task of every DAG reads this file, so it asks what the scheduler, from
which tasks are forked, has found out before.
"""

from __future__ import annotations

from mlengine.core.software import installed

if not installed():
    from mlengine.plugin import MlenginePlugin

    __all__ = ["MlenginePlugin"]
