"""The records of a model's champions: the pointer, the history, and the atomic update of the pointer.

Which model becomes champion is decided in :mod:`mlengine.promotion`. Validation, promotion, the page and the command
line read these records.
"""
