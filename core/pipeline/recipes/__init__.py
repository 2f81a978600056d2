"""Recipes: what a job is to do, checked once against its model before anything is queued, and typed from then on.

Nothing here imports torch, so that the API can check a request without it.
"""
