"""Dispatcher: one process, `python -m worker.dispatcher`, that runs periodic duties.

`clock.py` has its loop and the list of duties; each duty has its own thread. The work of a duty is done by the service.
Nothing here opens a model, and the broker is needed only for hints.
"""
