"""Removal of units block by block: one pass carries token streams through a model while its blocks become narrower.

The package has the plan of a pass, the pass itself, trials of counts, and its rows of the report. A method chooses the
units, through the protocols; `units` defines the tensors of each unit.
"""
