"""OPT: a head size that follows from the hidden size; the config puts norms before or after each sublayer.

It is declared because discovery sees the norms of one config only.
"""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.llama_like import PROJECTIONS
from core.engine.architectures.unit_axis import UnitAxis

ARCHITECTURE = Architecture(
    model_type="opt",
    architecture="OPTForCausalLM",
    title="OPT",
    order=100,
    base="model",
    blocks="model.decoder.layers",
    head="lm_head",
    embeddings="decoder.embed_tokens",
    sublayers=(
        Sublayer.of(PROJECTIONS, "self_attn.out_proj", {"heads": ()}, bias="enable_bias"),
        Sublayer.of(
            ("fc1",),
            "fc2",
            {"channels": (UnitAxis("fc1", "out", ("channel",)), UnitAxis("fc2", "in", ("channel",)))},
            bias="enable_bias",
        ),
    ),
    width_key="ffn_dim",
    tied_by_default=True,
)
