"""Texts that models write after the same prompts."""
