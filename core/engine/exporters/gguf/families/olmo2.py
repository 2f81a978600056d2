"""OLMo 2: norms after each sublayer's output, and norms of queries and keys that span all heads."""

from core.engine.exporters.gguf.family import LLAMA_MODULES, QK_NORMS, GgufFamily, GgufForm

FAMILY = GgufFamily(
    "Olmo2ForCausalLM",
    (GgufForm("olmo2", is_tied=False),),
    modules={
        **LLAMA_MODULES,
        **QK_NORMS,
        "post_attention_layernorm": "post_attention_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
)
