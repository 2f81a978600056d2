"""Events of jobs: hints to workers after a commit, and streams for clients that follow a job.

`after_commit.py` sends hints to workers. `stream.py` is the loop behind REST's stream and the portal's pages; its
callers format the events. `api.process.listener` is notified of new events over one connection.
"""
