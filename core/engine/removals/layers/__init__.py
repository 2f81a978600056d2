"""Layers: whole decoder layers go."""
