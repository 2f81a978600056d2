"""SmolLM3: Llama's modules, with rotary embeddings in some layers only.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like(
    "smollm3",
    "SmolLM3ForCausalLM",
    "SmolLM3",
    order=160,
    tied_by_default=True,
    lists_by_layer=("layer_types", "no_rope_layers"),
    reads_stream=True,
    attention_bias="attention_bias",
    ffn_bias="mlp_bias",
)
