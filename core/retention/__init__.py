"""Retention: the artifacts that a team keeps.

`schemas` is the policy, `rules` what it says of each artifact, `service` reads and sets it, previews what it would
remove, and removes it; `reads` knows which artifacts are being downloaded.
"""
