"""Calibration and evaluation sets: registered texts (plain, JSONL, Parquet) as documents, and documents as windows of
tokens. Reading text needs no torch."""
