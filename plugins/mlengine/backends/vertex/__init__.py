"""Vertex AI custom jobs as a training backend, over REST.

The generated clients cost 3 to 11 s to import; this speaks the same messages as plain JSON. Start at
:mod:`mlengine.backends.vertex.backend`; :mod:`mlengine.backends.vertex.request` has what a job file becomes.
"""
