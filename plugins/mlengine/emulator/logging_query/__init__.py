"""The Logging query language: the filters of Cloud Logging's ``entries:list``.

:mod:`~mlengine.emulator.logging_query.syntax` parses a filter, :mod:`~mlengine.emulator.logging_query.fields` knows
the fields of an entry, :mod:`~mlengine.emulator.logging_query.match` evaluates a filter, and
:mod:`~mlengine.emulator.logging_query.plan` finds the part of the log store that a filter can match.

There is no maintained Python parser of this language on the package index (nor one of AIP-160 that can be installed).
This handwritten parser has one function for each line of the documented grammar, and no dependencies.
"""
