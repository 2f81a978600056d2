"""Faults by the hundred, put into a whole installation while clients use it; afterwards a look at what was promised.

`schedule` decides from a seed which faults come; `fleet` has the processes and `faults` does it to them; `traffic` is
the clients, who write down what they were told in a journal; `checker` reads the API, the audit trail and the stores
afterwards and says what was broken. `python -m bench.chaos --seed 1 --faults 100` is the whole.
"""
