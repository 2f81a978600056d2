"""Removal of units block by block: one pass carries token streams through a model while its blocks become narrower.

The plan of a pass, the pass itself, trials of counts, and its rows of the report live here. A method chooses the units,
by the protocols; `units` says what each of them owns.
"""
