"""Options: the axes of methods' parameters as pydantic mix-ins, and their checks against a model's description.

A method's own parameters combine them elsewhere. Nothing here knows a method, an id of one or a tensor library.
"""
