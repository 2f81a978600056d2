"""Filters of image classifiers: the coupled channels of a network, their rankings, and the rounds that remove them.

A filter is removed together with the slices of other tensors that depend on it, as the network's graph shows.
"""
