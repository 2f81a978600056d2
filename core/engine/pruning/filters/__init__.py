"""Filters of image classifiers: the coupled channels of a network, their rankings, and the rounds that remove them.

A filter goes together with the slices of other tensors that belong to it, as the graph of the network shows.
"""
