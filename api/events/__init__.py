"""Events of jobs between processes: told once committed, and passed on to whoever follows a job.

`after_commit.py` sends hints to workers, and `stream.py` is the loop behind REST's stream and the portal's pages. How
an event looks to its reader is not said here; `api.process.listener` hears of new ones over one connection.
"""
