"""The programs that ``benchmarks/training.py`` runs in the trainer's environment."""
