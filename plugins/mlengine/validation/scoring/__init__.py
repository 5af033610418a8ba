"""Scoring: a model predicts the held-out rows, in the trainer's own environment.

The modules need only NumPy and the model's framework. They import nothing outside this package, as mlengine is not
installed in the trainer's environment. :mod:`mlengine.validation.scoring_process` starts :mod:`process` by its path
with the trainer's Python, which may differ from Airflow's Python, and may be older. All predictors have the same
interface:

* ``columns``: the columns that it reads
* ``predict(batch)``: converts a dict of NumPy arrays by column to an array, or a dict of arrays by output
"""
