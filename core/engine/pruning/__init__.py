"""Pruning engine: tensors in, tensors out, without database, HTTP, Celery or settings.

The package has the parts that methods combine, from the bottom up: masks and the statistics they read; solvers;
`streams` of tokens, `units` of language models, `filters` of classifiers and `iterative` pruning; the `protocols` of
methods; allocation and compensation; and the passes: `zeros_pass` sets weights to zero, `blocks` removes units. The
methods themselves are elsewhere.
"""
