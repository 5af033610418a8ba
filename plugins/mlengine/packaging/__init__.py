"""Packages a trainer: builds an sdist from its source, checks it, and uploads it to the bucket.

* :mod:`~mlengine.packaging.publish`: the steps in order, and the content-addressed upload
* :mod:`~mlengine.packaging.sources`: the kind of each source; :mod:`~mlengine.packaging.local_sources`: the local
  projects that it requires
* :mod:`~mlengine.packaging.source_tree`: the files to package and their digest;
  :mod:`~mlengine.packaging.excludes`: the files to leave out; :mod:`~mlengine.packaging.project_inputs`: other inputs
  of a build
* :mod:`~mlengine.packaging.project_copy`: the copy that is built, with a ``.git`` directory
  (:mod:`~mlengine.packaging.git_repository`)
* :mod:`~mlengine.packaging.project_build`: sdist and wheel by the project's own build backend;
  :mod:`~mlengine.packaging.package_build`: the sdist of a package dir
* :mod:`~mlengine.packaging.build`: runs uv; :mod:`~mlengine.packaging.build_failure`: error messages for failed builds
* :mod:`~mlengine.packaging.wheel_check`, :mod:`~mlengine.packaging.modules`: checks that the job's module is installed
* :mod:`~mlengine.packaging.archive`: reads sdists and wheels that were built elsewhere

Operators and the command line import this package.
"""
