"""Domain code of the pruning service in four packages, from the lowest: engine, methods, pipeline, service.

A package imports only packages below it. Modules that all of them share, such as settings, database, storage and
outbound HTTP, are in this folder. Neither `api` nor `worker` is imported here.
"""
