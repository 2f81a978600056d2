"""Resolution: a request turned into a job; every name is looked up, defaults are chosen and limits are checked.

`job` works through a request, and each other module resolves one part of it. `core.service.jobs.estimates` predicts
what a job will need. Nothing is queued here.
"""
