"""The pruning engine: tensors in, tensors out, without database, HTTP, Celery or settings.

The parts that methods are composed of. At the bottom are masks, saliency and the statistics they read. Above them are
`streams` of tokens, `units` of language models, `filters` of classifiers and what is `iterative`; then the `protocols`
by which a method is driven; then allocation and compensation. At the top are the passes: `layerwise` sets weights to
zero, `blocks` removes units. No method has a place here.
"""
