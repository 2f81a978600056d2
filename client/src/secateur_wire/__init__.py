"""Types and codecs that the server and its Python client share.

A file for each noun has its answers, `states` and `base` what they have in common. `job_body` and `recovery` are the
request for a job, `requests` is what all requests have in common; where a field holds an id of one of the server's
registries, it is a text here, and the server's own class narrows it. `job_fields` is the table of how people are asked
for its fields, `job_options` the command line's options that come from it. `weights` are the forms in which weights
travel. Nothing here imports the client or the server, torch or a database: pydantic and numpy are all it stands on.
"""
