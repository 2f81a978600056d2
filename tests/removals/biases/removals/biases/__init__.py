"""Biases: all that a setting of the config gives the linear layers of a sublayer goes, in every layer."""
