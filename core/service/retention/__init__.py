"""Retention: artifacts are removed by a team's policy, and models and datasets when the team deletes them.

`schemas` defines the policy, and `rules` expresses it as conditions that PostgreSQL evaluates. `service` reads, sets,
previews and applies it. `reads` records which artifacts are being downloaded, and `in_use` finds the artifacts that
must stay. `deletion` removes objects at a user's request. `orphans` removes files in the store that no row names.
"""
