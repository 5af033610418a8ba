"""The records of a model's champions: the pointer, the history, and the swap of the pointer.

Decides nothing: :mod:`mlengine.promotion` does. Validation, promotion, the page and the command line read it.
"""
