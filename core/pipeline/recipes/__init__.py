"""Recipes: the checks that a request fits a model, and the sizes it may aim at, made before anything is queued.

Nothing here imports torch, so that the API can check a request without it.
"""
