"""Discovery of an architecture: the model of a config is built without weights, run once, and watched.

Runs in a child process (`python -m core.engine.models.tracing`), as the API must not load torch. Nothing of a model
folder is executed: classes are transformers' own, and weights are known by their headers alone.
"""
