"""StableLM: Llama's modules, a head size that follows from the hidden size, attention and FFN in turn or at once."""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like("stablelm", "StableLmForCausalLM", "StableLM", order=150, heads=())
