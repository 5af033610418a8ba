"""What the trainer reads and writes, on a local disk or in a bucket.

* :mod:`~trainer.files.storage`: read, write and list
* :mod:`~trainer.files.manifest`: directories that are complete or invisible
* :mod:`~trainer.files.dataset`: dataset versions and batches
* :mod:`~trainer.files.checkpoint`: checkpoints
* :mod:`~trainer.files.reports`: progress, metrics and summaries for TensorBoard
"""
