"""What ``benchmarks/training.py`` runs in the trainer's environment."""
