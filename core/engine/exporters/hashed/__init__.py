"""Weights shared by a hash (HashedNets): description in `info`, `exporter` shares and stores them.

`sharing` says how, `fit` and `classifier` make the weights so, `files` stores what is left.
"""
