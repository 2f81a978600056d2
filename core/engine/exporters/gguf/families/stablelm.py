"""StableLM: rotary embeddings of part of a head, attention and FFN in turn or at once."""

from typing import TYPE_CHECKING

from core.engine.exporters.gguf.family import Form, GgufFamily, Keys
from core.engine.exporters.gguf.refusal import refusal

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _keys(config: "PretrainedConfig") -> Keys:
    if config.qk_layernorm:
        raise refusal("norms of the queries and keys of each head", "none")
    return {"use_parallel_residual": bool(config.use_parallel_residual)}


FAMILY = GgufFamily("StableLmForCausalLM", (Form("stablelm", is_tied=False),), keys=_keys)
