"""Types and codecs that the server and its Python client share.

A file for each noun has its answers, `states` and `base` what they have in common, `weights` the forms in which weights
travel. Nothing here imports the client or the server, torch or a database: pydantic and numpy are all it stands on.
"""
