"""The pruning engine: tensors in, tensors out, without database, HTTP, Celery or settings.

The parts that methods are composed of: saliency, masks and the statistics they read, the pass over the blocks of a
model, and packages of what is layer-wise, allocates, compensates, removes units or goes on in rounds. No method has a
place here, only the `protocols` by which one is driven.
"""
