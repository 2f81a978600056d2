"""Entries of methods with their papers and parameters.

The parameters are put together of `core.engine.options`. Neither torch nor transformers is imported here, so that the
API can describe a method without them.
"""
