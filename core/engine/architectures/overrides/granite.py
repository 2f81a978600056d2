"""Granite: Llama's modules, with a factor between each output and the residual stream.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like(
    "granite", "GraniteForCausalLM", "Granite", order=130, attention_bias="attention_bias", ffn_bias="mlp_bias"
)
