"""What the classical papers claim, tried with the methods of this service: `python -m bench.claims`, docs/claims.md.

`rules` says, claim by claim, what is asked and how it is decided (it loads no torch); `measurements` does the work of a
claim for one seed, in a process of its own; its figures are cached by the hash of what it does.
"""
