"""A PyTorch model of digits, trained by DistributedDataParallel on several replicas."""
