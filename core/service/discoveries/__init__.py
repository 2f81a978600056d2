"""Discoveries of unlisted architectures: a worker's child process finds the facts of a model once, for all teams.

`requests` looks a discovery up or requests one. `queue` hands it to a worker and records the result. `versions` knows
which version of the library the fleet uses. A discovery belongs to the content of a config and of headers, not to a
team: the same content has the same discovery. Only a team that asked for a discovery can read its state.
"""
