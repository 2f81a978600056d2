"""Table of docs/gpu.md: the card that a pass over a model of real size needs, by the estimate that jobs get.

`python -m bench.device_fit` prints it. Passes are traced, which takes minutes; all other estimates read shapes alone.
"""

from collections.abc import Iterator
from math import ceil
from typing import Final

from core.device_kinds import CUDA
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.forward_memory import SMALL_TENSORS
from core.engine.evaluation.reload_memory import full_needs, offloaded_needs
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.request import Recovery
from core.methods.cost import Tokens
from core.methods.registry import get_method
from core.pipeline.messages import PassQuestion
from core.pipeline.pass_trace import trace_pass
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.compute import facts_of
from core.service.jobs.estimates.device_choices import trained_choice_bytes
from core.service.jobs.estimates.training import training_bytes
from core.service.jobs.pass_traces import traced_pass
from core.service.jobs.schemas import JobBody
from secateur_wire.base import JsonObject

CARDS: Final = (8, 24, 48, 80)
"""Memory of cards, in GB; all of a card's but the context is a job's."""
_BUDGET: Final = 4 * 2**30
_WINDOW: Final = 2048
_TOKENS: Final = Tokens(calibration=128 * _WINDOW, evaluation=64 * _WINDOW, window=_WINDOW)
_VOCABULARY: Final = 32000
_HEAD: Final = 128
_NORMS: Final = ("input", "post_attention")
_LLAMAS: Final = {  # layers, hidden size, channels, width of keys
    "7B": (32, 4096, 11008, 4096),
    "13B": (40, 5120, 13824, 5120),
    "70B": (80, 8192, 28672, 1024),
}
_ROWS: Final[tuple[tuple[str, str, JsonObject], ...]] = (
    ("magnitude", "unstructured", {}),
    ("wanda", "unstructured", {}),
    ("wanda, two_pass", "unstructured", {"propagation": "two_pass"}),
    ("sparsegpt", "unstructured", {}),
    ("sparsegpt, two_pass", "unstructured", {"propagation": "two_pass"}),
    ("admm", "unstructured", {}),
    ("frontier", "unstructured", {}),
    ("l2-structured", "structured", {"compensation": {"refit": 0}}),
    ("llm-pruner", "structured", {"compensation": {"refit": 0}}),
    ("depth", "structured", {"compensation": {"refit": 0}}),
    ("depth, block_influence", "structured", {"compensation": {"refit": 0}, "criterion": "block_influence"}),
    ("bonsai", "structured", {"compensation": {"refit": 0}}),
    ("loraprune", "structured", {"compensation": {"refit": 0}}),
    ("lorashear", "structured", {"compensation": {"refit": 0}}),
)
_RECOVERIES: Final = (
    ("recovery: lora", Recovery(method="lora")),
    ("recovery: distill", Recovery(method="distill")),
    ("recovery: distill, lora null", Recovery(method="distill", lora=None)),
    ("recovery: finetune", Recovery(method="finetune")),
)
_TRAINED_LENGTH: Final = 512


def describe_llama(size: str, dtype: str) -> ModelDescription:
    """Return the description of a Llama of this size."""
    layers, hidden, channels, keys = _LLAMAS[size]
    within = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (channels, hidden),
        "mlp.up_proj": (channels, hidden),
        "mlp.down_proj": (hidden, channels),
    }
    linears = [
        LinearShape(name=f"model.layers.{layer}.{name}", layer=layer, out_features=rows, in_features=columns)
        for layer in range(layers)
        for name, (rows, columns) in within.items()
    ]
    prunable = sum(linear.numel for linear in linears)
    parameters = prunable + 2 * _VOCABULARY * hidden
    return ModelDescription(
        family="Llama",
        architecture="LlamaForCausalLM",
        parameters=parameters,
        prunable_parameters=prunable,
        bytes=WEIGHT_BYTES[dtype] * parameters,
        dtype=dtype,
        layers=layers,
        hidden_size=hidden,
        vocabulary_size=_VOCABULARY,
        context_length=4096,
        tied_embeddings=False,
        linears=linears,
    )


def table(*, is_traced: bool) -> Iterator[str]:
    """Yield the lines of the table. It has passes only if `is_traced`."""
    models = [(size, dtype) for size in _LLAMAS for dtype in ("bfloat16", "float32")]
    yield "| method | " + " | ".join(f"{size}, {dtype}" for size, dtype in models) + " |"
    yield "| :--- |" + " ---: |" * len(models)
    for name, pattern, parameters in _ROWS:
        if is_traced:
            cells = [cell(*model, name.partition(",")[0], pattern, parameters) for model in models]
            yield f"| {name} | " + " | ".join(cells) + " |"
    for name, recovery in _RECOVERIES:
        cells = [_cell(_training(describe_llama(*model), recovery)) for model in models]
        yield f"| {name} | " + " | ".join(cells) + " |"
    for name, needs in (("check of what was saved, whole", full_needs), ("check, matrices on disk", offloaded_needs)):
        cells = [_cell(needs(describe_llama(*model), CUDA).device_memory) for model in models]
        yield f"| {name} | " + " | ".join(cells) + " |"


def cell(size: str, dtype: str, method: str, pattern: str, parameters: JsonObject) -> str:
    """Return the entry of a pass over a Llama of this size."""
    description = describe_llama(size, dtype)
    body = JobBody.model_validate({"model": "m", "method": method, "sparsity": 0.5, "parameters": parameters})
    recipe = Recipe.model_validate(dict(body) | {"pattern": pattern})
    cost = get_method(method).variant(pattern).cost
    chosen = trained_choice_bytes(facts_of(description, recipe, _TOKENS), cost, CUDA)
    traced = traced_pass(description, recipe, _TOKENS, CUDA, _BUDGET)
    assert traced is not None
    question = PassQuestion(config=_config(size, dtype), tensors=_tensors(description), traced=traced)
    return _cell(max(chosen, ceil(SMALL_TENSORS * trace_pass(question))))


def _config(size: str, dtype: str) -> JsonObject:
    layers, hidden, channels, keys = _LLAMAS[size]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": dtype,
        "hidden_size": hidden,
        "intermediate_size": channels,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // _HEAD,
        "num_key_value_heads": keys // _HEAD,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }


def _tensors(description: ModelDescription) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor of a Llama."""
    stored = {"bfloat16": "BF16", "float32": "F32"}[description.dtype]
    shapes: dict[str, tuple[int, ...]] = {
        each.name: (each.out_features, each.in_features) for each in description.linears
    }
    norms = [f"model.layers.{layer}.{norm}_layernorm" for layer in range(description.layers) for norm in _NORMS]
    shapes |= dict.fromkeys((*norms, "model.norm"), (description.hidden_size,))
    shapes |= dict.fromkeys(("model.embed_tokens", "lm_head"), (_VOCABULARY, description.hidden_size))
    return {f"{name}.weight": (stored, shape) for name, shape in shapes.items()}


def _training(description: ModelDescription, recovery: Recovery) -> int:
    completed = complete_recovery(recovery, description, _TRAINED_LENGTH)
    return training_bytes(description, completed, device=CUDA, activation_budget_bytes=_BUDGET).memory


def _cell(nbytes: int) -> str:
    """Return the gigabytes with those of the smallest card that has them."""
    assert CUDA.context_bytes is not None
    needed = (nbytes + CUDA.context_bytes) / 1e9
    card = next((f"{card} GB" for card in CARDS if needed <= card), "none")
    return f"{needed:.1f}: {card}"


if __name__ == "__main__":
    for line in table(is_traced=True):
        print(line, flush=True)
