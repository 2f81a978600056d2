"""Artifacts of jobs, Hugging Face model folders with a model card and a manifest, and the stores that keep them.

Nothing here imports torch: tensors are copied as bytes.
"""
