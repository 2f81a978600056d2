"""StableLM: rotary embeddings of part of a head, attention and FFN in sequence or in parallel."""

from core.engine.exporters.gguf.family import Config, GgufFamily, GgufForm, Keys
from core.engine.exporters.gguf.refusal import refusal


def _keys(config: Config) -> Keys:
    if config["qk_layernorm"]:
        raise refusal("norms of the queries and keys of each head", "none")
    return {"use_parallel_residual": bool(config["use_parallel_residual"])}


FAMILY = GgufFamily("StableLmForCausalLM", (GgufForm("stablelm", is_tied=False),), keys=_keys)
