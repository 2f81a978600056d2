"""Table of architecture families: all that the engine must know of each, declared once.

A family names where its decoder blocks live and which linear layers of a block read the same input tensor: those
share one statistic and one factorisation. Everything else (rotary embeddings, masks, norms, soft caps) is the
model's own code, run as it is.
"""

from dataclasses import dataclass

from core.engine.architectures.classifier_architecture import CLASSIFIER_ARCHITECTURES, ClassifierArchitecture
from core.engine.architectures.unit_counts import Part
from core.errors import UnsupportedArchitecture


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    `blocks` is the module list of decoder layers, `base` the attribute of the causal model that holds the backbone
    (hub files of some families leave it out of their keys), `inputs` the linear layers of a block grouped by the
    tensor they read, in order of execution. `transposed` marks weights stored as [in, out] (GPT-2's Conv1D).
    `stored_head` is the head's name in files where it is not that of the module. `channels` and `heads` are what goes
    with an FFN channel and with a head (empty where the head size follows from the hidden size, so that none can go);
    `width_key` is the config's name for the number of channels, `heads_divide_hidden` whether the config insists on it.
    `stream_norms` are the norms whose input is the residual stream that the attention's output and the FFN's output are
    added to, in that order; empty where a norm lies between (then only layers' own outputs are targets).
    """

    model_type: str
    architecture: str
    title: str
    base: str
    blocks: str
    head: str
    inputs: tuple[tuple[str, ...], ...]
    channels: tuple[Part, ...]
    heads: tuple[Part, ...] = ()
    width_key: str = "intermediate_size"
    heads_divide_hidden: bool = False
    transposed: bool = False
    stored_head: str | None = None
    stream_norms: tuple[str, ...] = ()

    @property
    def attention_output(self) -> str:
        """Return the linear layer that reads the output of the heads: the second group of inputs, in every family."""
        return self.inputs[1][0]

    @property
    def channel_reader(self) -> str:
        """Return the linear layer that reads the FFN's channels: the last one."""
        return self.inputs[-1][0]

    @property
    def added_to_stream(self) -> dict[str, str]:
        """Return the linear layers that add to the residual stream, each with the norm that reads it before."""
        return dict(zip((self.attention_output, self.channel_reader), self.stream_norms, strict=False))

    @property
    def linears(self) -> tuple[str, ...]:
        """Return all prunable linear layers of a block, relative to the block."""
        return tuple(name for group in self.inputs for name in group)

    def module_name(self, key: str) -> str:
        """Return the model's name for a file's key: hub files of some families omit the prefix of the base model."""
        if self.stored_head is not None and key.startswith(f"{self.stored_head}."):
            return self.head + key.removeprefix(self.stored_head)
        if key.startswith((f"{self.base}.", f"{self.head}.")):
            return key
        return f"{self.base}.{key}"

    def stored_name(self, name: str) -> str:
        """Return the key a file has for a name of the model."""
        if self.stored_head is not None and name.startswith(f"{self.head}."):
            return self.stored_head + name.removeprefix(self.head)
        return name


_LLAMA_INPUTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
_LLAMA_CHANNELS = (
    Part("mlp.gate_proj", "out", ("channel",)),
    Part("mlp.up_proj", "out", ("channel",)),
    Part("mlp.down_proj", "in", ("channel",)),
)
_LLAMA_HEADS = (
    Part("self_attn.q_proj", "out", ("query",)),
    Part("self_attn.k_proj", "out", ("key",)),
    Part("self_attn.v_proj", "out", ("key",)),
    Part("self_attn.o_proj", "in", ("query",)),
)
_LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
_NORMS_OVER_ALL_HEADS = (Part("self_attn.q_norm", "out", ("query",)), Part("self_attn.k_norm", "out", ("key",)))


def _llama_like(
    model_type: str,
    architecture: str,
    title: str,
    *,
    heads: tuple[Part, ...] = _LLAMA_HEADS,
    heads_divide_hidden: bool = False,
    stream_norms: tuple[str, ...] = (),
) -> Architecture:
    return Architecture(
        model_type,
        architecture,
        title,
        "model",
        "model.layers",
        "lm_head",
        _LLAMA_INPUTS,
        _LLAMA_CHANNELS,
        heads,
        heads_divide_hidden=heads_divide_hidden,
        stream_norms=stream_norms,
    )


LANGUAGE_ARCHITECTURES: dict[str, Architecture] = {
    family.architecture: family
    for family in (
        _llama_like("llama", "LlamaForCausalLM", "Llama", heads_divide_hidden=True, stream_norms=_LLAMA_NORMS),
        _llama_like("mistral", "MistralForCausalLM", "Mistral", stream_norms=_LLAMA_NORMS),
        _llama_like("qwen2", "Qwen2ForCausalLM", "Qwen2", stream_norms=_LLAMA_NORMS),
        _llama_like("qwen3", "Qwen3ForCausalLM", "Qwen3", stream_norms=_LLAMA_NORMS),
        _llama_like("gemma2", "Gemma2ForCausalLM", "Gemma 2", heads_divide_hidden=True),
        _llama_like("gemma3_text", "Gemma3ForCausalLM", "Gemma 3", heads_divide_hidden=True),
        _llama_like("olmo2", "Olmo2ForCausalLM", "OLMo 2", heads=_LLAMA_HEADS + _NORMS_OVER_ALL_HEADS),
        Architecture(
            "phi3",
            "Phi3ForCausalLM",
            "Phi-3",
            "model",
            "model.layers",
            "lm_head",
            (("self_attn.qkv_proj",), ("self_attn.o_proj",), ("mlp.gate_up_proj",), ("mlp.down_proj",)),
            (Part("mlp.gate_up_proj", "out", ("channel", "channel")), Part("mlp.down_proj", "in", ("channel",))),
            (
                Part("self_attn.qkv_proj", "out", ("query", "key", "key")),
                Part("self_attn.o_proj", "in", ("query",)),
            ),
            stream_norms=_LLAMA_NORMS,
        ),
        Architecture(
            "gpt2",
            "GPT2LMHeadModel",
            "GPT-2",
            "transformer",
            "transformer.h",
            "lm_head",
            (("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
            (Part("mlp.c_fc", "out", ("channel",)), Part("mlp.c_proj", "in", ("channel",))),
            width_key="n_inner",
            transposed=True,
            stream_norms=("ln_1", "ln_2"),
        ),
        Architecture(
            "opt",
            "OPTForCausalLM",
            "OPT",
            "model",
            "model.decoder.layers",
            "lm_head",
            (
                ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                ("self_attn.out_proj",),
                ("fc1",),
                ("fc2",),
            ),
            (Part("fc1", "out", ("channel",)), Part("fc2", "in", ("channel",))),
            width_key="ffn_dim",
        ),
        Architecture(
            "gpt_neox",
            "GPTNeoXForCausalLM",
            "GPT-NeoX",
            "gpt_neox",
            "gpt_neox.layers",
            "lm_head",
            (
                ("attention.query_key_value",),
                ("attention.dense",),
                ("mlp.dense_h_to_4h",),
                ("mlp.dense_4h_to_h",),
            ),
            (Part("mlp.dense_h_to_4h", "out", ("channel",)), Part("mlp.dense_4h_to_h", "in", ("channel",))),
            stored_head="embed_out",
        ),
    )
}


def architecture_for(architectures: list[str]) -> Architecture:
    """Return the family of a config's `architectures`; raises UnsupportedArchitecture naming those supported."""
    for architecture in architectures:
        if architecture in LANGUAGE_ARCHITECTURES:
            return LANGUAGE_ARCHITECTURES[architecture]
    named = ", ".join(repr(each[:100]) for each in architectures[:5]) or "none named in config.json"
    known: list[Architecture | ClassifierArchitecture] = [
        *LANGUAGE_ARCHITECTURES.values(),
        *CLASSIFIER_ARCHITECTURES.values(),
    ]
    supported = ", ".join(f"{family.title} ({family.architecture})" for family in known)
    raise UnsupportedArchitecture(f"architecture {named} is not supported; supported: {supported}", param="model")
