"""Pruning of image classifiers, in memory: the scene a method works in, weights as matrices, channels that go together,
retraining, and what survives between rounds. The methods themselves are in `core.pruning.methods.classifiers`."""
