"""Mistral, which is Llama to llama.cpp."""

from core.engine.exporters.gguf.family import DECI, LLAMA, GgufFamily

FAMILY = GgufFamily("MistralForCausalLM", (LLAMA, DECI))
