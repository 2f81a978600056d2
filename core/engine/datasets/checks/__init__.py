"""Checks of an answer against its reference, without a judge: each is a module of `kinds`, found by the registry.

A row of a set names its check and gives the reference: `{"prompt": "…", "check": "number", "reference": 12}`.
"""
