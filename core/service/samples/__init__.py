"""Requests for the samples: a team asks for a first model with texts, and a worker fetches them.

`requests.py` takes requests and reports their progress; `queue.py` hands them to a worker and records the result. The
list of samples, and the code that fetches them, are in `worker/samples`.
"""
