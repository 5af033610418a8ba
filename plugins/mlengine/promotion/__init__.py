"""Whether a validated model becomes the champion, and who is told.

* :mod:`~mlengine.promotion.publish`: publish, force, roll back
* :mod:`~mlengine.promotion.rules`: what prevents a publication
* :mod:`~mlengine.promotion.registries`: model registries elsewhere that follow the champion

Stands on ``champions`` (the records) and ``validation`` (the reports).
"""
