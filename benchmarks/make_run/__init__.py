"""The parts of the benchmarks ``start`` and ``run``: ``make run`` in clones, measured from outside."""
