"""Calibration and evaluation sets.

Texts (plain, JSONL, Parquet) are read as documents, and documents as windows of tokens. Images (a folder, Parquet) are
read as rows, decoded, and returned as the pixels and labels that a classifier takes. Reading and describing them needs
no torch; `token_windows`, `image_set` and `image_cache` do. No model is opened here.
"""
