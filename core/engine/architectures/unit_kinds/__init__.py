"""Kinds of units within decoder blocks, one module each. The registry finds them; nothing else names one.

A module's `KINDS` has one `UnitKind`, or one for each way to count such units.
"""
