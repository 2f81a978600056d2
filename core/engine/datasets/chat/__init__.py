"""Conversations as calibration, evaluation and training text.

`conversations` reads and checks the rows of a file. `template` renders a conversation by a model's own chat template,
and `render` is the secluded child that does so with a stranger's template. `rendered` is the format of its answer, and
`windows` cuts rendered conversations into windows of tokens, which needs torch. Nothing else here does.
"""
