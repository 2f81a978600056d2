"""Qwen2: llama.cpp has no head size for it, so that without some heads it is stored as Llama with biases."""

from core.engine.exporters.gguf.family import DECI, LLAMA, GgufFamily, GgufForm

FAMILY = GgufFamily("Qwen2ForCausalLM", (GgufForm("qwen2"), LLAMA, DECI))
