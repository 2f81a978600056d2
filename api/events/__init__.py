"""Events of jobs between processes: told once committed, heard, and passed on to whoever follows a job.

`after_commit.py` sends hints to workers, `listener.py` hears of new events over one connection to PostgreSQL, and
`stream.py` is the loop behind REST's stream and the portal's pages. How an event looks to its reader is not said here.
"""
