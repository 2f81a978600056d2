"""Kinds of units within decoder blocks, a module each, which the registry finds and nothing else has to name.

A module has `KINDS`: one `UnitKind`, or one for each way in which such units can be counted.
"""
