"""Qwen2 and Qwen2.5, which name one architecture."""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like("qwen2", "Qwen2ForCausalLM", "Qwen2", order=30, reads_stream=True)
