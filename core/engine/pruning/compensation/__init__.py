"""Compensation: updates of the weights that stay, so that a layer's outputs change least by those that went.

Which weights go is decided elsewhere: by masks, or by the units that are kept.
"""
