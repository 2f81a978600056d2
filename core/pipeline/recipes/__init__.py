"""Recipes: typed descriptions of jobs, checked once against their model before anything is queued.

Nothing here imports torch, so that the API can check a request without it.
"""
