"""The job index: one row for each job, in a few objects of the bucket, so that a list of jobs needs no job directory.

The process that ends or validates a job writes its row (:mod:`~mlengine.job_index.recording`). The rows are a cache:
the job directories decide, and :mod:`mlengine.web.index` finds the rows that are missing or out of date from listings
of the bucket. All objects of the index may be deleted at any time.
"""
