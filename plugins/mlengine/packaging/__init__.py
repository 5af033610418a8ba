"""From a trainer's source to an sdist in the bucket.

* :mod:`~mlengine.packaging.sources`: what is packaged for what the user named;
  :mod:`~mlengine.packaging.local_sources`: the local projects it requires
* :mod:`~mlengine.packaging.source_tree`: which files, and their digest; :mod:`~mlengine.packaging.excludes`: which not;
  :mod:`~mlengine.packaging.project_inputs`: what else decides a build
* :mod:`~mlengine.packaging.project_copy`: what a build runs on, with the metadata of git
  (:mod:`~mlengine.packaging.git_repository`)
* :mod:`~mlengine.packaging.project_build`: the sdist and its wheel, by the project's own build backend;
  :mod:`~mlengine.packaging.package_build`: the sdist of a package dir
* :mod:`~mlengine.packaging.build`: running uv; :mod:`~mlengine.packaging.build_failure`: what its failures mean
* :mod:`~mlengine.packaging.wheel_check`, :mod:`~mlengine.packaging.modules`: whether the module to run is installed
* :mod:`~mlengine.packaging.archive`: limits on archives that others made
* :mod:`~mlengine.packaging.publish`: the order of all that, and the upload, content-addressed

Operators and the command line use it.
"""
