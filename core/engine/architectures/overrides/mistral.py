"""Mistral."""

from core.engine.architectures.llama_like import NORMS, llama_like

ARCHITECTURE = llama_like("mistral", "MistralForCausalLM", "Mistral", order=20, stream_norms=NORMS)
