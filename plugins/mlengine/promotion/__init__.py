"""Publication of validated models as champions, and their registration in external model registries.

* :mod:`~mlengine.promotion.publish`: publish a model, publish a model with force, roll back
* :mod:`~mlengine.promotion.rules`: the rules that can prevent a publication
* :mod:`~mlengine.promotion.registries`: external model registries that follow the champion

This package uses ``champions`` for the records and ``validation`` for the reports.
"""
