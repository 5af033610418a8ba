"""A Keras model of the MNIST digits, as a trainer for mlengine."""
