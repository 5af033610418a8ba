"""``mlengine serve``: a training service on loopback that other people's clients accept.

Two faces on one engine: Vertex AI's ``customJobs`` and ML Engine's ``projects.jobs``. It holds no logic of its own
about jobs: a face turns a request into a :class:`~mlengine.core.spec.TrainingSpec`, the engine hands it to a backend
(``local`` by default) and remembers it.
"""
