"""Qwen2, whose heads have no size of their own in llama.cpp: once some are gone it is Llama with biases."""

from core.engine.exporters.gguf.family import DECI, LLAMA, GgufFamily, GgufForm

FAMILY = GgufFamily("Qwen2ForCausalLM", (GgufForm("qwen2"), LLAMA, DECI))
