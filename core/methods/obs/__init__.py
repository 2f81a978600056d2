"""Optimal Brain Surgeon: the method, and its updates."""
