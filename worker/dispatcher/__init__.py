"""The dispatcher: one process, `python -m worker.dispatcher`, that has what is due done.

`clock.py` is its loop and its duties, each in a thread of its own. What a duty does is in the service; nothing here
touches a model, or needs the broker for more than hints.
"""
