"""Bonsai: the method, and its regression over masks."""
