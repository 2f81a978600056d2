"""Removal of tokens from a language model's vocabulary, before everything else."""
