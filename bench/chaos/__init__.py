"""Faults by the hundred, put into a whole installation while clients use it; afterwards a look at what was promised.

`faults` decides from a seed which come, and does them to the processes of `fleet`; `clients` use it, and write down
what they were told in a journal; `promises` reads the API, the audit trail and the stores afterwards and says what was
broken. `python -m bench.chaos --seeds 1 --faults 100` is the whole.
"""
