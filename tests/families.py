"""The table of families and methods: tiny models of every family, and which ways to prune each harness tries on them.

A row is a way to prune, and a column what is checked of it:

- `reload`: a model of the family, opened again in a fresh process, gives the logits that were measured
  (`tests/engine`);
- `simulator`: what a simulated accelerator leaves has the CPU's bytes (`tests/simulator`);
- `capabilities`: what of every type of transformers is tried with it (`bench.architectures`);
- `golden`: jobs that are compared between revisions (`tests/golden`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.architectures.outcomes import Capability
from core.engine.models.reference_networks import NETWORKS
from core.methods.registry import get_method

_COMMON: dict[str, object] = {
    "vocab_size": 96, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_LLAMA: dict[str, object] = _COMMON | {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
_OPT: dict[str, object] = _COMMON | {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "word_embed_proj_dim": 32,
}  # fmt: skip

LANGUAGE_CONFIGS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "llama": ("LlamaConfig", _LLAMA | {"tie_word_embeddings": True}),
    "llama-untied": ("LlamaConfig", _LLAMA | {"tie_word_embeddings": False}),
    "mistral": ("MistralConfig", _LLAMA | {"sliding_window": 8}),
    "qwen2": ("Qwen2Config", _LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", _LLAMA),
    "gemma2": ("Gemma2Config", _LLAMA | {"sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", _LLAMA | {"sliding_window": 8, "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "phi3": ("Phi3Config", _LLAMA),
    "olmo2": ("Olmo2Config", _LLAMA),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4,
        "bos_token_id": 1, "eos_token_id": 2}),
    "opt": ("OPTConfig", _OPT),
    "opt-projected": ("OPTConfig", _OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt-neox": ("GPTNeoXConfig", _COMMON | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4}),
    "starcoder2": ("Starcoder2Config", _LLAMA | {"sliding_window": 8}),
    "granite": ("GraniteConfig", _LLAMA | {"embedding_multiplier": 3.0, "attention_multiplier": 0.2,
        "residual_multiplier": 0.4, "logits_scaling": 2.0}),
    "glm": ("GlmConfig", _LLAMA | {"eos_token_id": 2}),
    "stablelm": ("StableLmConfig", _LLAMA),
    "stablelm-parallel": ("StableLmConfig", _LLAMA | {"use_parallel_residual": True, "qk_layernorm": True}),
    "smollm3": ("SmolLM3Config", _LLAMA | {"no_rope_layers": [1, 1, 0]}),
}  # fmt: skip
"""Language models, by a name: the class of the config, and the sizes in which it is small."""

_VIT: dict[str, object] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}

CLASSIFIER_CONFIGS: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "resnet": ("ResNetConfig", _STAGES | {"layer_type": "basic"}),
    "mobilenet-v2": ("MobileNetV2Config", {"depth_multiplier": 0.25, "finegrained_output": False, "image_size": 32}),
    "regnet": ("RegNetConfig", _STAGES | {"groups_width": 4}),
    "convnext": ("ConvNextConfig", {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "vit": ("ViTConfig", _VIT),
    "deit": ("DeiTConfig", _VIT),
    "timm-resnet": ("TimmWrapperConfig", {"architecture": "resnet10t", "model_args": {"channels": [8, 8, 16, 16]}}),
    "timm-vgg": ("TimmWrapperConfig", {"architecture": "vgg11_bn", "model_args": {"mlp_ratio": 1 / 128}}),
}
"""Image classifiers of transformers and timm, likewise."""

LANGUAGE_MODELS: Final = tuple(LANGUAGE_CONFIGS)
CLASSIFIERS: Final = (*CLASSIFIER_CONFIGS, *NETWORKS)
DEEP: Final = "llama-deep"
"""A Llama of more layers, whose pruning takes long enough to be killed in the middle; of the golden jobs alone."""

_SMALL: Final[dict[str, object]] = {
    "steps": 10, "batch_size": 2, "retrain_steps": 3, "rounds": 2, "masks_per_round": 10, "round_share": 0.5,
    "sequences": 2, "iterations": 4, "periods": 1, "conjugate_gradient_steps": 3, "measured_images": 8,
}  # fmt: skip


def small_parameters(
    method: str, pattern: str | None, given: Mapping[str, Any], small: Mapping[str, object] = _SMALL
) -> dict[str, Any]:
    """Return the parameters that are given, and those by which a method that repeats something does so a few times."""
    fields = get_method(method).variant(pattern).parameters.model_fields
    return {name: value for name, value in small.items() if name in fields} | dict(given)


def share_of(pattern: str | None) -> float:
    """Return the share that goes of a tiny model: less where whole units do."""
    return 0.25 if pattern == "structured" else 0.5


@dataclass(frozen=True)
class Golden:
    """A golden job: its model, the share that is asked for, and what else its body has."""

    model: str
    sparsity: float | None = 0.5
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A way to prune, the families that each harness tries it on, and the golden jobs, by name, that are of it."""

    method: str
    pattern: str | None = "unstructured"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reload: tuple[str, ...] = ()
    simulator: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    golden: Mapping[str, Golden] = field(default_factory=dict)

    @property
    def way(self) -> tuple[str, str]:
        return self.method, self.pattern or ""


_OF_SPARSEGPT: Final = (
    "llama", "llama-untied", "mistral", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "gpt2", "opt", "opt-projected",
    "gpt-neox",
)  # fmt: skip
_UNFITTED: Final[dict[str, Any]] = {"compensation": {"refit": 0, "ridge": 0.01}}
_AS_PUBLISHED: Final[dict[str, Any]] = {"attention": "kv_groups"} | _UNFITTED
_RETRAINED: Final[dict[str, Any]] = {"retrain_steps": 4, "batch_size": 8, "rounds": 2}
_REFITTED: Final[dict[str, Any]] = {"compensation": {"refit": 0.5}}


def _recovered(kind: str) -> Golden:
    steps = {"method": kind, "dataset": "text", "steps": 4, "batch_size": 2, "sequence_length": 24}
    return Golden("llama", body={"recovery": steps})


def _removed(method: str, **parameters: Any) -> Row:
    return Row(method, "structured", parameters, golden={method: Golden("llama", 0.3)})


ROWS: Final = (
    # Weights of language models.
    Row("random", reload=LANGUAGE_MODELS, golden={"random": Golden("llama")}),
    Row("magnitude", reload=LANGUAGE_MODELS, golden={"magnitude": Golden("llama")}),
    Row("wanda", reload=LANGUAGE_MODELS, capabilities=("unstructured",), golden={"wanda": Golden("llama")}),
    Row(
        "sparsegpt",
        reload=LANGUAGE_MODELS,
        simulator=("gpt2",),
        golden={f"sparsegpt {name}": Golden(name) for name in _OF_SPARSEGPT} | {"sparsegpt deep": Golden(DEEP)},
    ),
    Row("admm", golden={"admm": Golden("llama")}),
    Row("frontier", simulator=("llama",), golden={"frontier": Golden("llama")}),
    Row("random", "2:4", reload=LANGUAGE_MODELS),
    Row("magnitude", "2:4", reload=LANGUAGE_MODELS),
    Row("wanda", "2:4", reload=LANGUAGE_MODELS, golden={"wanda 2:4": Golden("llama", None)}),
    Row("sparsegpt", "2:4", reload=LANGUAGE_MODELS, capabilities=("n:m",)),
    Row("sparsegpt", "2:4", {"propagation": "two_pass"}, simulator=("llama",)),
    Row("magnitude", parameters={"scope": "model", "allocation": "uniform"}, simulator=("llama",)),
    Row("random", parameters={"allocation": "fisher"}, simulator=("llama",)),
    Row("wanda", parameters={"allocation": "owl"}, simulator=("llama",), golden={"wanda owl": Golden("llama")}),
    Row("sparsegpt", parameters={"allocation": "fisher"}, golden={"sparsegpt fisher": Golden("llama")}),
    Row("magnitude", golden={"packed": Golden("llama", 0.6, {"output": {"format": "packed"}})}),
    Row("wanda", golden={f"{kind} after wanda": _recovered(kind) for kind in ("finetune", "lora", "distill")}),
    Row("sensitivity", None, golden={"sensitivity": Golden("llama", None)}),
    # Units, layers and experts of language models.
    Row("random-structured", "structured", reload=LANGUAGE_MODELS),
    Row(
        "l2-structured",
        "structured",
        reload=LANGUAGE_MODELS,
        simulator=("gemma2",),
        capabilities=("channels", "heads", "per layer"),
    ),
    Row("depth", "structured", reload=LANGUAGE_MODELS, simulator=("llama",), capabilities=("layers",)),
    Row("llm-pruner", "structured", reload=LANGUAGE_MODELS),
    Row("llm-pruner", "structured", _REFITTED, simulator=("llama",)),
    Row("frontier", "structured", simulator=("llama",)),
    Row("expert-drop", "structured", capabilities=("experts",)),
    Row("vocabulary", "structured", {"amount": 0.5}, capabilities=("rows",)),
    *(_removed(method, **_AS_PUBLISHED) for method in ("random-structured", "l2-structured", "llm-pruner")),
    _removed("bonsai", **_AS_PUBLISHED, masks_per_round=12, round_share=0.15, sequences=4),
    _removed("loraprune", **_AS_PUBLISHED, steps=10, batch_size=2),
    _removed("lorashear", **_AS_PUBLISHED, steps=20, batch_size=2, periods=2),
    _removed("depth", **_UNFITTED),
    Row(
        "l2-structured",
        "structured",
        {"scope": "model"} | _AS_PUBLISHED,
        golden={"l2 per layer": Golden("llama", 0.3, {"output": {"layout": "per_layer"}})},
    ),
    # Weights of classifiers.
    Row("sparsegpt", simulator=("resnet",)),
    Row("obd", simulator=("mlp",)),
    Row("wanda", golden={f"wanda {model}": Golden(model) for model in ("resnet", "vit")}),
    *(Row(method, golden={f"{method} lenet": Golden("lenet-5")}) for method in ("magnitude", "obs")),
    Row(
        "obs",
        parameters={"mode": "exact", "curvature_images": 20},
        golden={"obs whole network": Golden("digits-1989", 0.05)},
    ),
    Row("obd", parameters={"curvature_images": 20} | _RETRAINED, golden={"obd lenet": Golden("lenet-5")}),
    Row(
        "iterative-magnitude",
        parameters={"scan_images": 20} | _RETRAINED,
        golden={"iterative lenet": Golden("lenet-5")},
    ),
    Row(
        "magnitude",
        golden={"hashed lenet": Golden("lenet-5", body={"output": {"format": "hashed", "compression": 0.25}})},
    ),
    # Filters of classifiers.
    Row("filter-taylor", "structured", simulator=("digits-1989",)),
    Row("filter-l1", "structured", {"selection": "greedy"}, simulator=("lenet-5",)),
    Row("filter-l1", "structured", {"order": "random"}, simulator=("lenet-5",)),
    Row("filter-l1", "structured", {"measured_images": 20}, golden={"filter-l1": Golden("resnet", 0.3)}),
    Row(
        "filter-taylor",
        "structured",
        {"measured_images": 20, "retrain_steps": 2},
        golden={"filter-taylor": Golden("resnet", 0.3)},
    ),
)


def reloaded(*removed: str) -> list[tuple[str, str]]:
    """Return the ways of the column `reload` that remove this: weights, widths or layers."""
    return [row.way for row in ROWS if row.reload and get_method(row.method).removes in removed]


def simulated_ways(models: tuple[str, ...]) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return what the simulator tries: one of these models, and a method with pattern and parameters."""
    return [(model, *row.way, dict(row.parameters)) for row in ROWS for model in row.simulator if model in models]
