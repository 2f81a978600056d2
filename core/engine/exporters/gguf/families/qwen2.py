"""Qwen2, whose heads have no size of their own in llama.cpp: once some are gone it is Llama with biases."""

from core.engine.exporters.gguf.family import DECI, LLAMA, Form, GgufFamily

FAMILY = GgufFamily("Qwen2ForCausalLM", (Form("qwen2"), LLAMA, DECI))
