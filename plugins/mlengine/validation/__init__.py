"""Validation of a trained model: the checks between a finished training and a verdict.

* :mod:`~mlengine.validation.validation`: runs the checks in order and stores the report
* :mod:`~mlengine.validation.rules`, :mod:`~mlengine.validation.extra_checks`: which checks are made
* :mod:`~mlengine.validation.export`: finds the files of the model and checks that they are complete
* :mod:`~mlengine.validation.signature`: signature, devices and ops, read without running the model
* :mod:`~mlengine.validation.heldout`: the held-out rows, written as files of one column each
* :mod:`~mlengine.validation.scoring`: the script that runs the model, in the trainer's environment
* :mod:`~mlengine.validation.scoring_process`: runs that script as a subprocess with time and memory limits
* :mod:`~mlengine.validation.evaluation`: predictions, metrics and slices
* :mod:`~mlengine.validation.quality`: compares the measurements with the thresholds
* :mod:`~mlengine.validation.comparison`: compares the model with the champion
* :mod:`~mlengine.validation.report`, :mod:`~mlengine.validation.report_page`: the report as JSON and as HTML
* :mod:`~mlengine.validation.cache`: accepted jobs that later runs with the same inputs reuse

Only that script imports the model's framework, never this process. Promotion, operators and the command line import
this package.
"""
