"""The engine: tensors in, tensors out. One module for each axis a method chooses on (saliency, masks, allocation,
compensation), the statistics they read, and the sweep that carries token streams through a model block by block while
it is pruned. No database, HTTP, Celery or settings."""
