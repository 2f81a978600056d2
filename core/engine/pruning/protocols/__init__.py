"""Protocols: the interfaces by which passes drive methods, one for each shape of mathematics.

No method has a place here, nor a registry of them.
"""
