"""GPT-NeoX: attention and FFN side by side, a head size that follows from the hidden size, and a head `embed_out`.

Discovery finds the same, the head's name in files as a renamed key; it is declared so that such a model is known at
once.
"""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.unit_axis import UnitAxis

ARCHITECTURE = Architecture(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    title="GPT-NeoX",
    order=110,
    base="gpt_neox",
    blocks="gpt_neox.layers",
    head="lm_head",
    embeddings="embed_in",
    sublayers=(
        Sublayer.of(("attention.query_key_value",), "attention.dense", {"heads": ()}, bias="attention_bias"),
        Sublayer.of(
            ("mlp.dense_h_to_4h",),
            "mlp.dense_4h_to_h",
            {
                "channels": (
                    UnitAxis("mlp.dense_h_to_4h", "out", ("channel",)),
                    UnitAxis("mlp.dense_4h_to_h", "in", ("channel",)),
                )
            },
        ),
    ),
    stored_head="embed_out",
)
