"""What the classical papers claim, tried with the methods of this service: `python -m bench.claims`, docs/claims.md.

`claims.toml` says, claim by claim, what is asked and how it is decided; `classical` and `language` do the work of a
claim for one seed, in a process of its own; its figures are cached by the hash of what it does.
"""
