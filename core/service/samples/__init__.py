"""Requests for the samples: a team asks for a model and texts to begin with, and a worker fetches them.

`requests.py` takes them and says how far they are, `queue.py` hands them to a worker and takes their end. What the
samples are, and how they are fetched, the worker knows (`worker/samples`).
"""
