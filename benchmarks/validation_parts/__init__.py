"""The parts of ``python -m benchmarks validation``."""
