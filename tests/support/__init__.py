"""What several test modules share: helpers with names of the field. Fixtures are in the ``conftest.py`` files."""
