"""Processes that run jobs and keep the embedded services alive.

`processes.py` is the one place that starts processes and `embedded.py` owns the embedded PostgreSQL. `app.py` and
`tasks.py` are the Celery side of a worker; `dispatcher.py` is the clock, `duties.py` how it has things done.
`supervisor.py` runs one claimed job by driving `runner.py` over the messages of `protocol.py`; the runner is a process
of its own, forked by way of `fork_server.py` from one that has loaded its libraries, `runner_server.py`; only they and
what they load, `runner_*.py`, import torch. `cli.py` adds the server's commands (`serve.py`, `samples.py`, `demo.py`)
to the client's command line.
"""
