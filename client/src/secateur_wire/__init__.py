"""Code that the server and its Python client share: the forms in which weights travel.

Types of requests and answers come here too. Nothing here imports the client or the server, torch or a database:
pydantic and numpy are all it stands on.
"""
