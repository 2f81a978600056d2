"""Protocols: the interfaces through which passes call methods, one for each shape of mathematics.

No method is here, nor a registry of methods.
"""
