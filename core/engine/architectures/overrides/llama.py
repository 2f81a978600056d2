"""Llama.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like(
    "llama",
    "LlamaForCausalLM",
    "Llama",
    order=10,
    heads_divide_hidden=True,
    reads_stream=True,
    attention_bias="attention_bias",
    ffn_bias="mlp_bias",
)
