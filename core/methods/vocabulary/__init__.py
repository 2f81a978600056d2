"""Removal of tokens from the vocabulary: description in `info`; the pass, which changes no layer, in `method`."""
