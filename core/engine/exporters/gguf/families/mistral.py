"""Mistral, which llama.cpp runs as Llama."""

from core.engine.exporters.gguf.family import DECI, LLAMA, GgufFamily

FAMILY = GgufFamily("MistralForCausalLM", (LLAMA, DECI))
