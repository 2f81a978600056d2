"""Reload check of an artifact."""
