"""Qwen3: norms of queries and keys are per head, so that they stay unchanged when heads are removed.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like(
    "qwen3", "Qwen3ForCausalLM", "Qwen3", order=40, reads_stream=True, attention_bias="attention_bias"
)
