"""The job index: one row per job, in a few objects of the bucket, so that jobs can be listed without reading each job
directory.

The process that ends or validates a job writes the job's row (:mod:`~mlengine.job_index.recording`). The rows are a
cache; the job directories are authoritative. :mod:`mlengine.web.index` lists the bucket to find rows that are missing
or out of date. All objects of the index may be deleted at any time.
"""
