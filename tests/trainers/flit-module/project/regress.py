"""A straight line."""

__version__ = "1.0"

print("regress as", __name__)
