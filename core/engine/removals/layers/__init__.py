"""Layers: a language model loses whole decoder layers."""
