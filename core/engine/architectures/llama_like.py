"""Parts that many architectures share with Llama: separate projections, a gated FFN, a norm before each sublayer."""

from core.engine.architectures.architecture import Architecture, Sublayer
from core.engine.architectures.unit_axis import UnitAxis

PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
CHANNELS = (
    UnitAxis("mlp.gate_proj", "out", ("channel",)),
    UnitAxis("mlp.up_proj", "out", ("channel",)),
    UnitAxis("mlp.down_proj", "in", ("channel",)),
)
HEADS = (
    UnitAxis("self_attn.q_proj", "out", ("query",)),
    UnitAxis("self_attn.k_proj", "out", ("key",)),
    UnitAxis("self_attn.v_proj", "out", ("key",)),
    UnitAxis("self_attn.o_proj", "in", ("query",)),
)
ATTENTION_NORM = "input_layernorm"
FFN_NORM = "post_attention_layernorm"
FUSED_FFN = Sublayer.of(
    ("mlp.gate_up_proj",),
    "mlp.down_proj",
    {
        "channels": (
            UnitAxis("mlp.gate_up_proj", "out", ("channel", "channel")),
            UnitAxis("mlp.down_proj", "in", ("channel",)),
        )
    },
    norm=FFN_NORM,
)
"""FFN with one projection for the gate and the channels."""


def llama_like(
    model_type: str,
    architecture: str,
    title: str,
    *,
    order: int,
    heads: tuple[UnitAxis, ...] = HEADS,
    heads_divide_hidden: bool = False,
    tied_by_default: bool = False,
    lists_by_layer: tuple[str, ...] = ("layer_types",),
    reads_stream: bool = False,
    attention_bias: str | None = None,
    ffn_bias: str | None = None,
) -> Architecture:
    """Return an architecture with Llama's module names; `reads_stream`: its norms read the residual stream."""
    return Architecture(
        model_type=model_type,
        architecture=architecture,
        title=title,
        order=order,
        base="model",
        blocks="model.layers",
        head="lm_head",
        sublayers=(
            Sublayer.of(
                PROJECTIONS,
                "self_attn.o_proj",
                {"heads": heads},
                norm=ATTENTION_NORM if reads_stream else None,
                bias=attention_bias,
            ),
            Sublayer.of(
                ("mlp.gate_proj", "mlp.up_proj"),
                "mlp.down_proj",
                {"channels": CHANNELS},
                norm=FFN_NORM if reads_stream else None,
                bias=ffn_bias,
            ),
        ),
        heads_divide_hidden=heads_divide_hidden,
        tied_by_default=tied_by_default,
        lists_by_layer=lists_by_layer,
    )
