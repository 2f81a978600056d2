"""Generated tasks that a model of a hundred million parameters can do, each with a check of the answer.

A kind of task is a module of `kinds`, found by the registry. Everything is drawn from a seed.
"""
