"""GLM: rotary embeddings of half a head, and a gate fused with the channels."""

from core.engine.exporters.gguf.family import LLAMA_MODULES, GgufFamily, GgufForm

FAMILY = GgufFamily("GlmForCausalLM", (GgufForm("chatglm"),), modules=LLAMA_MODULES | {"mlp.gate_up_proj": "ffn_up"})
