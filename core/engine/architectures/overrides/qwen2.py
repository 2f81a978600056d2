"""Qwen2 and Qwen2.5, which share the name of one architecture.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like("qwen2", "Qwen2ForCausalLM", "Qwen2", order=30, reads_stream=True)
