"""Costs of a language model's parts in the engine that runs it, and the latency that follows for any shape."""
