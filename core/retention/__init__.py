"""Retention: which artifacts a team keeps. `schemas` is the policy, `rules` what it says of each artifact, `service`
reads and sets it, tells what it would remove, and removes it; `reads` knows which artifacts are being downloaded.
"""
