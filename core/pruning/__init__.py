"""The pruning engine: tensors in, tensors out, without database, HTTP, Celery or settings.

One module for each axis a method chooses on (saliency, masks, allocation, compensation), the statistics they read, and
the layer-wise pass that carries token streams through a model block by block while it is pruned.
"""
