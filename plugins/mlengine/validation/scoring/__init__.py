"""Scoring: a model gives its predictions for the held-out rows, in the trainer's own environment.

Plain modules that need NumPy and the model's framework, and nothing of mlengine: the trainer's environment has none.
:mod:`mlengine.validation.scoring_process` starts :mod:`process` by its path with the trainer's Python, which need not
be the Python of Airflow, and may be older. Nothing outside this package is imported here. Every predictor has one
interface:

* ``columns``: the columns that it reads
* ``predict(batch)``: from a dict of NumPy arrays by column to an array, or a dict of arrays by output
"""
