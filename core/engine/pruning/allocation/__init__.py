"""Allocation: the sparsity of each layer, from a ranking over all layers or from their gradients.

Other packages prune the layers.
"""
