"""Phi-3: fused queries, keys and values, and a gate fused with the channels.

Where heads are gone, or layers differ, it is stored as Llama, with the fused tensors split.
"""

from dataclasses import replace
from typing import Final

from core.engine.exporters.gguf.family import DECI, GATE_AND_UP, LLAMA, LLAMA_MODULES, GgufFamily, GgufForm

_PARTS: Final = {"self_attn.qkv_proj": ("attn_q", "attn_k", "attn_v"), **GATE_AND_UP}

FAMILY = GgufFamily(
    "Phi3ForCausalLM",
    (GgufForm("phi3"), replace(LLAMA, parts=_PARTS), replace(DECI, parts=_PARTS)),
    modules=LLAMA_MODULES | {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
)
