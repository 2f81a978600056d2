"""Latency of dense and pruned."""
