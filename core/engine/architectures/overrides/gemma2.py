"""Gemma 2, with a norm between each output and the residual stream.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like(
    "gemma2",
    "Gemma2ForCausalLM",
    "Gemma 2",
    order=50,
    heads_divide_hidden=True,
    tied_by_default=True,
    attention_bias="attention_bias",
)
