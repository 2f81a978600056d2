"""Weights shared by a hash: `sharing` says how, `fit` and `classifier` make them so, `files` stores what is left."""
