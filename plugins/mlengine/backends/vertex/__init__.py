"""Vertex AI custom jobs as a training backend, over REST.

The generated clients take 3 to 11 s to import; this package sends the same messages as plain JSON. Start reading at
:mod:`mlengine.backends.vertex.backend`; :mod:`mlengine.backends.vertex.request` converts a job file to a request.
"""
