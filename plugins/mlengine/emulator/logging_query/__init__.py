"""The Logging query language: the filters of Cloud Logging's ``entries:list``.

:mod:`~mlengine.emulator.logging_query.syntax` parses a filter, :mod:`~mlengine.emulator.logging_query.fields` knows
the fields of an entry, :mod:`~mlengine.emulator.logging_query.match` evaluates a filter, and
:mod:`~mlengine.emulator.logging_query.plan` finds the part of the log store that a filter can match.

The package index has no maintained parser of this language for Python (nor one of AIP-160 that can be installed). A
parser by hand has one function for each line of the documented grammar, and no dependency.
"""
