"""Benchmarks, each figure from a process of its own: Secateur against llm-compressor on one model and the same tokens,
and the prune stage's memory over depth. `python -m bench` runs all of it; nothing here is imported by the product.
"""
