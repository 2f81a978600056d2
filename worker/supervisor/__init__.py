"""Supervision of claimed jobs: what a worker's own process does, with credentials and without torch.

`supervisor.py` takes one job from fetch to store: `inputs.py` brings what it names here, `attempt.py` has the runner go
through the stages that it has, `recorder.py` writes what happened under the `lease.py`, and `work_folders.py` keeps
what a retry goes on from. `heartbeat.py` and `job_poller.py` are threads beside it. Nothing here opens a model or a
file of one: that is the runner's, which is started and heard through `worker.runner.client`.
"""
