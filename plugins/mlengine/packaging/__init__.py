"""From a trainer's source to an sdist in the bucket.

* :mod:`~mlengine.packaging.source_tree`: which files, and their digest; :mod:`~mlengine.packaging.excludes`: which not
* :mod:`~mlengine.packaging.build`: the sdist, by the project's own build backend
* :mod:`~mlengine.packaging.archive`: limits on archives that others made
* :mod:`~mlengine.packaging.publish`: the order of all that, and the upload, content-addressed

Operators and the command line use it.
"""
