"""Layer-wise pruning: one pass that carries token streams through a model, block by block, while its layers are pruned.

The package has the plan of a pass, the pass itself, and its rows of the report. Methods choose the weights.
"""
