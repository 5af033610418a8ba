"""Find what does not belong."""

__version__ = "0.5"
