"""``python -P component.py COMMAND …`` runs ``airflow COMMAND …``, which starts with less CPU time.

By default, Python's garbage collector runs each time 700 more objects exist. Airflow's components create many objects
when they start, the API server above all, and nearly all of them are kept. The collector would take a third of the CPU
time of the API server's start.
"""

from __future__ import annotations

import gc
import sys

_NEW_OBJECTS = 10_000  # with a higher number, the processes use more memory and start no faster


def main() -> None:
    gc.set_threshold(_NEW_OBJECTS)
    from airflow.__main__ import main as airflow

    sys.argv[0] = "airflow"
    airflow()


if __name__ == "__main__":
    main()
