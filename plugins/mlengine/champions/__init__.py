"""The records of a model's champions: the pointer, the history, and the atomic update of the pointer.

:mod:`mlengine.promotion` decides which model becomes champion. Validation, promotion, the page and the command line
read these records.
"""
