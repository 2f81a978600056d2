"""Mixtral, which llama.cpp runs as a Llama with experts."""

from core.engine.exporters.gguf.family import LLAMA, GgufFamily
from core.engine.exporters.gguf.mixtures import MODULES, STACKS

FAMILY = GgufFamily("MixtralForCausalLM", (LLAMA,), modules=MODULES, parameters=STACKS)
