"""GPT-2: weights stored as [in, out], and a head size that follows from the hidden size.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.unit_axis import UnitAxis

ARCHITECTURE = Architecture(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    title="GPT-2",
    order=90,
    base="transformer",
    blocks="transformer.h",
    head="lm_head",
    embeddings="wte",
    sublayers=(
        Sublayer.of(("attn.c_attn",), "attn.c_proj", {"heads": ()}, norm="ln_1"),
        Sublayer.of(
            ("mlp.c_fc",),
            "mlp.c_proj",
            {"channels": (UnitAxis("mlp.c_fc", "out", ("channel",)), UnitAxis("mlp.c_proj", "in", ("channel",)))},
            norm="ln_2",
        ),
    ),
    width_key="n_inner",
    config_keys={
        "num_hidden_layers": "n_layer",
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
    },
    tied_by_default=True,
    transposed=True,
)
