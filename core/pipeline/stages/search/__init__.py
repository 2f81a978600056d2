"""Search for the sparsity of a latency."""
