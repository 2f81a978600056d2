"""Phi-3: fused queries, keys and values, and a gate fused with the channels."""

from core.engine.exporters.gguf.family import LLAMA_MODULES, GgufFamily, GgufForm

FAMILY = GgufFamily(
    "Phi3ForCausalLM",
    (GgufForm("phi3"),),
    modules=LLAMA_MODULES | {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
)
