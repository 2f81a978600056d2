"""Bench of the removal of tokens: `python -m bench.vocabulary [--write docs/vocabulary-bench.md]`.

`plan` has the jobs, `running` runs them by the service on the sample model, `logits_cell` compares the logits of a
dense model and of one that lost tokens, `families_cell` tries tokenizers of all kinds, and `report` holds all of it
against the goals.
"""
