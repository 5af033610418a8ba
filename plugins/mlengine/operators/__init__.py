"""The stages of a retraining, one a file: package, dataset, prepare, submit, validate, publish."""
