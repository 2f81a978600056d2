"""Kinds of removal: the parts that a model can lose, one folder for each kind.

`info` in a kind's folder computes, without torch, how much can be removed, the counts that meet a request, and what is
left; `run` removes it. Methods name the kind that they remove. `registry` finds the kinds; nothing else names them.
"""
