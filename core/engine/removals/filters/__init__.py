"""Filters: image classifiers lose convolution filters, with every channel coupled to them."""
