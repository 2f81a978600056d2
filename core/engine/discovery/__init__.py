"""Discovery of an architecture: the model of a config is built without weights, run once, and traced.

It runs in a child process (`python -m core.engine.discovery`), because the API must not load torch. No code of a
model folder is executed: classes are transformers' own, and only the headers of weights are read.
"""
