"""StableLM: Llama's modules, head size from the hidden size; attention and FFN in sequence or in parallel.

It is declared because discovery sees the norms of one config only, and the config says which read the residual stream.
"""

from core.engine.architectures.llama_like import llama_like

ARCHITECTURE = llama_like("stablelm", "StableLmForCausalLM", "StableLM", order=150, heads=())
