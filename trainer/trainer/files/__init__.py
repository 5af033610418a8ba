"""The files that the trainer reads and writes, on a local disk or in a bucket.

* :mod:`~trainer.files.storage`: reading, writing and listing files
* :mod:`~trainer.files.manifest`: directories that readers see only when they are complete
* :mod:`~trainer.files.dataset`: dataset versions and batches
* :mod:`~trainer.files.checkpoint`: checkpoints
* :mod:`~trainer.files.reports`: progress, metrics and summaries for TensorBoard
"""
