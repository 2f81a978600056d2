"""Llama."""

from core.engine.architectures.llama_like import NORMS, llama_like

ARCHITECTURE = llama_like(
    "llama",
    "LlamaForCausalLM",
    "Llama",
    order=10,
    heads_divide_hidden=True,
    stream_norms=NORMS,
    attention_bias="attention_bias",
    ffn_bias="mlp_bias",
)
