"""Layer-wise pruning: one pass that carries token streams through a model, block by block, while its layers are pruned.

The plan of a pass, its streams and cached hidden states, and what is saved between blocks live here. How a layer's
weights are chosen is a method's.
"""
