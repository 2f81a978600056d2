"""Calibration and evaluation sets. Texts (plain, JSONL, Parquet) as documents, and documents as windows of tokens;
images (a folder, Parquet) as rows, decoded, and as the pixels and labels that a classifier takes. Reading and
describing either needs no torch; `tokens`, `generation`, `images` and `opened_images` do."""
