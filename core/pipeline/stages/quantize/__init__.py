"""Quantisation of what pruning and training made, where these do not quantise themselves."""
