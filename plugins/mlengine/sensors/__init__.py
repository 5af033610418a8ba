"""The sensor that waits for a training job."""
