"""The gate: everything between a finished training and a verdict.

* :mod:`~mlengine.gate.export`: which files are the model, and are they whole
* :mod:`~mlengine.gate.wire`: what the model says of itself, read without running it
* :mod:`~mlengine.gate.probe`: the script that runs it, in the trainer's environment
* :mod:`~mlengine.gate.runner`: that script in a process of its own, with limits of time and memory
* :mod:`~mlengine.gate.quality`: what was measured, held to the thresholds and to the champion
* :mod:`~mlengine.gate.validation`: the order of all that; :mod:`~mlengine.gate.report`, :mod:`~mlengine.gate.page`:
  what is kept of it

TensorFlow is imported by the probe only, never by this process.
"""
