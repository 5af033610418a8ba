"""Metrics of predictions, in NumPy: values, comparisons with the champion, slices, and data for plots.

* :mod:`~mlengine.validation.metrics.outcomes`: the data from which metrics are computed
* :mod:`~mlengine.validation.metrics.classification`, :mod:`~mlengine.validation.metrics.ranking`,
  :mod:`~mlengine.validation.metrics.regression`: the definitions
* :mod:`~mlengine.validation.metrics.registry`: computes a metric by its name
* :mod:`~mlengine.validation.metrics.bootstrap`: paired comparison of two models
* :mod:`~mlengine.validation.metrics.slices`: metrics of parts of the held-out set
* :mod:`~mlengine.validation.metrics.curves`: data for plots, bounded in size

Names, tasks and directions are in :mod:`mlengine.core.metrics`. Only :mod:`mlengine.validation` imports this package.
"""
