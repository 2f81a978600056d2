"""Discoveries: architectures that nobody listed, found out once by a worker's child process and kept for everybody.

`asking` finds one or asks for it, `queue` hands it to a worker and takes its end, `versions` knows with which library
the fleet would look. A discovery belongs to the content of a config and of headers, not to a team: whoever has the same
content has the same discovery. Only a team that asked for it can look how far it is.
"""
