"""Calibration and evaluation sets.

Texts (plain, JSONL, Parquet) are read as documents, and documents as windows of tokens; images (a folder, Parquet) are
read as rows, decoded, and given as the pixels and labels that a classifier takes. Reading and describing either needs
no torch; `token_windows`, `image_set` and `image_cache` do. No model is opened here.
"""
