"""A sub-package with data files."""
