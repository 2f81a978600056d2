"""Supervision of claimed jobs, in a worker's own process: it has credentials, but no torch.

`supervisor.py` runs one job from fetch to store. `inputs.py` fetches its inputs. `attempt.py` has the runner run the
job's stages. `recorder.py` writes what happened, under the lease in `lease.py`. `work_folders.py` keeps the files that
a retry resumes from. `heartbeat.py` and `job_poller.py` are threads beside the job. Nothing here opens a model or its
files: the runner does that, and `worker.runner.client` starts it and reads its messages.
"""
