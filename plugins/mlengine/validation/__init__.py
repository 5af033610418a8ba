"""Validation of a trained model: the checks between a finished training and a verdict.

* :mod:`~mlengine.validation.validation`: runs the checks in order and stores the report
* :mod:`~mlengine.validation.rules`, :mod:`~mlengine.validation.extra_checks`: which checks are made
* :mod:`~mlengine.validation.export`: finds the files of the model and checks that they are complete
* :mod:`~mlengine.validation.signature`: signature, devices and ops, read without running the model
* :mod:`~mlengine.validation.probe`: the script that runs the model, in the trainer's environment
* :mod:`~mlengine.validation.runner`: runs that script as a subprocess with time and memory limits
* :mod:`~mlengine.validation.quality`: compares the measurements with the thresholds and with the champion
* :mod:`~mlengine.validation.report`, :mod:`~mlengine.validation.report_page`: the report as JSON and as HTML
* :mod:`~mlengine.validation.cache`: accepted jobs that later runs with the same inputs reuse

Only the probe imports TensorFlow, never this process. Promotion, operators and the command line import this package.
"""
