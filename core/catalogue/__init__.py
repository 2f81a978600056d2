"""Catalogue of all that a job can request: patterns, methods with their papers and parameters, and architectures.

It also has the readers of `config.json` and safetensors headers. Neither torch nor transformers is imported here, so
the API can validate a job without them; the engine's methods bind to these entries by id.
"""
