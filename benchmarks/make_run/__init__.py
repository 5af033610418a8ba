"""``make run`` of clones, measured from outside: the parts of ``start`` and ``run``."""
