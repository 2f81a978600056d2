"""Mistral.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like("mistral", "MistralForCausalLM", "Mistral", order=20, reads_stream=True)
