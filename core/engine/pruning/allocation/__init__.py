"""Allocation: how much of the model's sparsity each layer gets, by a ranking over all layers or by their gradients.

What a layer then does with its share has no place here.
"""
