"""Accuracy on zero-shot tasks."""
