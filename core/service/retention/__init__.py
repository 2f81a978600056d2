"""Retention: what is kept, and what goes: artifacts by a team's policy, models and datasets that it deletes.

`schemas` is the policy, `rules` what it says of each artifact, as conditions that PostgreSQL evaluates, `service` reads
and sets it, previews what it would remove, and removes it; `reads` knows which artifacts are being downloaded and
`in_use` what must stay. `deletion` removes what users ask for, and the sweep of `orphans` keeps the store to what rows
name.
"""
