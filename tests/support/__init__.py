"""Helpers that several test modules share. Fixtures are in the ``conftest.py`` files."""
