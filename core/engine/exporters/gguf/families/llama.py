"""Llama."""

from core.engine.exporters.gguf.family import DECI, LLAMA, GgufFamily

FAMILY = GgufFamily("LlamaForCausalLM", (LLAMA, DECI))
