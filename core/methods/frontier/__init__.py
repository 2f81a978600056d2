"""Frontier: a method for zeros, and one for a smaller model."""
