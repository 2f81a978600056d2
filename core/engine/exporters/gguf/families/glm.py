"""GLM: rotary embeddings of half a head, in pairs of neighbours, and a gate fused with the channels.

Where heads are gone, or layers differ, it is stored as Llama, with the fused tensors split.
"""

from dataclasses import replace

from core.engine.exporters.gguf.family import DECI, GATE_AND_UP, LLAMA, LLAMA_MODULES, GgufFamily, GgufForm

FAMILY = GgufFamily(
    "GlmForCausalLM",
    (
        GgufForm("chatglm"),
        *(replace(each, rotates_neighbours=False, parts=GATE_AND_UP) for each in (LLAMA, DECI)),
    ),
    modules=LLAMA_MODULES | {"mlp.gate_up_proj": "ffn_up"},
)
