"""OLMo 2: norms of queries and keys span all heads and shrink with them; a norm follows each sublayer's output.

Discovery finds the same; it is declared so that such a model is known at once.
"""

from core.engine.architectures.llama_like import HEADS, llama_like
from core.engine.architectures.unit_axis import UnitAxis

ARCHITECTURE = llama_like(
    "olmo2",
    "Olmo2ForCausalLM",
    "OLMo 2",
    order=70,
    heads=(
        *HEADS,
        UnitAxis("self_attn.q_norm", "out", ("query",)),
        UnitAxis("self_attn.k_norm", "out", ("key",)),
    ),
    attention_bias="attention_bias",
)
