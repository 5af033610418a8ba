"""A trainer without dependencies: the mean image of each digit."""
