"""Filters: image classifiers lose convolution filters, and all that is coupled to them."""
