"""Catalogue of what a job can request: methods with their papers and parameters, targets, and how they agree.

The parameters are put together of `core.engine.options`, and models are described by `core.engine.architectures`.
Neither torch nor transformers is imported here, so the API can validate a job without them; the engine's methods bind
to these entries by id.
"""
