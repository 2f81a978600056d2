"""SmolLM3: no rotary embeddings in every fourth layer."""

from core.engine.exporters.gguf.family import Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    own = [bool(each) for each in config["no_rope_layers"]]
    if own != [(layer + 1) % 4 != 0 for layer in range(len(own))]:
        raise refusal(
            f"no rotary embeddings in layers {', '.join(str(layer) for layer, has in enumerate(own) if not has)}",
            "none in every fourth layer, as llama.cpp has it by a layer's number",
        )
    return {}


FAMILY = GgufFamily(
    "SmolLM3ForCausalLM",
    (GgufForm("smollm3", has_head_size=True, rotates_neighbours=True),),
    keys=_keys,
    layers_are_numbered=True,
)
