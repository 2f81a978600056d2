"""Quantised weights: `settings` has the ways to round them and the choices of a job; `roundings`, the mathematics."""
