"""Types and codecs that the server and its Python client share.

There is a file for the answers of each noun; `states` and `base` have their common parts. `job_body` and `recovery` are
the request for a job, and `requests` has the common parts of all requests. A field with an id of one of the server's
registries is a text here, and the server's own class narrows it. `job_fields` is the table of the fields as people see
them, and `job_options` the resulting options of the command line. `gone` names what has left. `weights` has the formats
of weight files. Nothing here imports the client, the server, torch or a database: it depends only on pydantic and
numpy.
"""
