"""Qwen3, whose norms of queries and keys are those of one head, so that they stay as heads go."""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like(
    "qwen3", "Qwen3ForCausalLM", "Qwen3", order=40, reads_stream=True, attention_bias="attention_bias"
)
