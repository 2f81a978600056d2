"""Qwen3. Where layers differ it is stored as OpenELM, which has all of Qwen3's parts in layers of any shape."""

from typing import Final

from core.engine.exporters.gguf.family import LLAMA_MODULES, QK_NORMS, GgufFamily, GgufForm

_FUSED: Final = {"attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}

FAMILY = GgufFamily(
    "Qwen3ForCausalLM",
    (
        GgufForm("qwen3", has_head_size=True),
        GgufForm("openelm", has_head_size=True, has_layers=True, is_tied=True, joined=_FUSED),
    ),
    modules=LLAMA_MODULES | QK_NORMS,
)
