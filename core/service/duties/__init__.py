"""Duties of the dispatcher, as the service knows them: when each was last done, and how each goes through its rows.

`isolation` does each row on its own, so that one that fails keeps no other waiting; `team_threads` has what waits for
the hub done off the duty's thread, each team in turn; `times` notes what was done.
"""
