"""The example trainer: MNIST on a cluster of parameter servers, workers and a chief, or in one process."""
