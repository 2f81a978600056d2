"""Qwen3."""

from core.engine.exporters.gguf.family import LLAMA_MODULES, QK_NORMS, GgufFamily, GgufForm

FAMILY = GgufFamily("Qwen3ForCausalLM", (GgufForm("qwen3", has_head_size=True),), modules=LLAMA_MODULES | QK_NORMS)
