"""A trainer that needs no TensorFlow."""
