"""Bench of the removal of tokens: `python -m bench.vocabulary [--write docs/vocabulary-bench.md]`.

`plan` has the models and jobs, and `running` makes them, the jobs by the service on the sample model. `quality_cell`
and `logits_cell` compare a dense model and one that lost tokens, `families_cell` tries tokenizers of all kinds, and
`report` holds all of it against the goals.
"""
