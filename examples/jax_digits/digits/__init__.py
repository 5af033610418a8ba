"""A JAX model of digits, trained on several processes."""
