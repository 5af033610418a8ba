"""The wait."""
