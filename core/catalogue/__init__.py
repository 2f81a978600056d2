"""What can be asked for: patterns, methods with their papers and parameter schemas, the table of architecture
families, and readers of `config.json` and safetensors headers. Neither torch nor transformers is imported here, so
the API can validate a job without them; the engine's methods bind to these entries by id.
"""
