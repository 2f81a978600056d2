"""Processes that run jobs and keep the embedded services alive.

`app.py` and `tasks.py` are the Celery side of a worker. `supervisor/` runs one claimed job. It starts `runner/` and
`fetcher/` as processes of their own: the runner opens models and is the only one that imports torch, and the fetcher
downloads what a job reads. `dispatcher/` runs periodic duties. `embedded/` runs PostgreSQL and all other services in
one home. `cli/` has the server's commands in the client's command line, and `samples/` what `secateur samples` fetches.

Files in this folder serve several of these. `processes.py` is the only place that starts processes. `node_cache.py` is
shared by the supervisors and fetchers of a node. `node.py` starts a worker for each device of a container. Entry points
are `prepare.py`, `alive.py`, `migration_check.py` and the package itself, which is the worker of a container.
"""
