"""Domain code of the pruning service in four wings, each above the one before: engine, methods, pipeline, service.

What all share, as errors, settings, the database, storage and calls to others, lies beside them. Neither `api` nor
`worker` is imported.
"""
