"""Duties of the dispatcher: when each last ran, and how each works through its rows.

`isolation` processes each row by itself, so that one failing row blocks no other. `team_threads` runs work that waits
for the hub outside of the duty's thread, each team in turn. `times` records when duties ran.
"""
