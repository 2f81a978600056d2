"""Weights shared by a hash (HashedNets): description in `info`; `exporter` shares and stores them.

`sharing` defines the hash, `fit` and `classifier` make weights share values, `files` stores the shared values.
"""
