"""What users' own tests may use: a real Cloud Storage server on loopback."""
