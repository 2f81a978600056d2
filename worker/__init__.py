"""Processes that run jobs and keep the embedded services alive.

`app.py` and `tasks.py` are the Celery side of a worker. `supervisor/` runs one claimed job, by driving `runner/`, which
opens models and is all that imports torch, and `fetcher/`, which brings what a job reads: both processes of their own.
`dispatcher/` is the clock. `embedded/` has PostgreSQL and all else in one home, `cli/` the server's commands
in the client's command line, `samples/` what `secateur samples` fetches. Files here are what several of them need:
`processes.py` is the one place that starts processes, `node_cache.py` is what supervisors and fetchers of a node share;
`node.py` starts a worker for each device where a container has several; and what is started by its name: `prepare.py`,
`alive.py`, `migration_check.py` and the package itself, which is a container's worker.
"""
