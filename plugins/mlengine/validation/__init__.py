"""Everything between a finished training and a verdict.

* :mod:`~mlengine.validation.rules`, :mod:`~mlengine.validation.extra_checks`: what a model is asked
* :mod:`~mlengine.validation.export`: which files are the model, and whether they are complete
* :mod:`~mlengine.validation.signature`: the model's signature, read without running it
* :mod:`~mlengine.validation.probe`: the script that runs it, in the trainer's environment
* :mod:`~mlengine.validation.runner`: that script in a process of its own, with limits of time and memory
* :mod:`~mlengine.validation.quality`: measurements compared with the thresholds and with the champion
* :mod:`~mlengine.validation.validation`: the order of all that
* :mod:`~mlengine.validation.report`, :mod:`~mlengine.validation.report_page`: the result, as JSON and as a page
* :mod:`~mlengine.validation.cache`: accepted jobs that later runs with the same inputs reuse

TensorFlow is imported by the probe only, never by this process. Promotion, operators and the command line use it.
"""
