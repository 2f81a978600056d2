"""StableLM: Llama's modules, a head size that follows from the hidden size, attention and FFN in turn or at once.

Discovery knows the norms of one config, and here it is the config that says what reads the stream.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like("stablelm", "StableLmForCausalLM", "StableLM", order=150, heads=())
