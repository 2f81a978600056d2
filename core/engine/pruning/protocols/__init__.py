"""Protocols: the interfaces through which passes call methods, one for each form of method.

No method is here, nor a registry of methods.
"""
