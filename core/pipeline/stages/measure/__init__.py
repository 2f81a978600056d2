"""Latency of the dense and the pruned model."""
