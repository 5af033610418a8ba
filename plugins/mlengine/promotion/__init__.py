"""Publication of a validated model as champion, and its copy in model registries.

* :mod:`~mlengine.promotion.publish`: publish, publish with force, roll back
* :mod:`~mlengine.promotion.rules`: what prevents a publication
* :mod:`~mlengine.promotion.registries`: external model registries that follow the champion

Uses ``champions`` (the records) and ``validation`` (the reports).
"""
