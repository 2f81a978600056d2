"""Sensitivity of a language model."""
