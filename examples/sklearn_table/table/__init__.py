"""A scikit-learn model of a CSV table, as a trainer for mlengine."""
