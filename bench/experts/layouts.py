"""Mixtures of experts that compute what a dense model of the Llama family does, as Qwen3-MoE and as Mixtral.

Each expert is a copy of the dense MLP and gates add up to 1, so that it does not matter where a token goes.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import (
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

Model = TypeVar("Model", bound=PreTrainedModel)
_LINEAR_SHARE = 2.0**-24
"""Factor of the projections of queries and keys: a norm over so small values divides by the root of its ε alone."""


def as_qwen3_moe(dense: LlamaForCausalLM, *, experts: int, top_k: int, every: int) -> Qwen3MoeForCausalLM:
    """Return a Qwen3-MoE of a dense model, in which each `every`-th layer is a mixture, with routers of zeros.

    Its attention normalises each head's queries and keys, which Llama's does not. Both projections are made so small
    that the norm's ε is all it divides by, and the norms' weights give them their size again: what is left of the
    normalisation is below the rounding of float32.
    """
    config = Qwen3MoeConfig(
        **_shape(dense),
        moe_intermediate_size=dense.config.intermediate_size,
        num_experts=experts,
        num_experts_per_tok=top_k,
        norm_topk_prob=True,
        decoder_sparse_step=every,
    )
    config.head_dim = dense.config.head_dim
    state: dict[str, Tensor] = {}
    query_norm, key_norm = _norm_weights(float(config.rms_norm_eps))
    for name, tensor in dense.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            state[name] = tensor * _LINEAR_SHARE
        else:
            state[name] = tensor
    for layer in range(config.num_hidden_layers):
        attention = f"model.layers.{layer}.self_attn"
        state[f"{attention}.q_norm.weight"] = torch.full((config.head_dim,), query_norm)
        state[f"{attention}.k_norm.weight"] = torch.full((config.head_dim,), key_norm)
        if (layer + 1) % every == 0:
            state |= _copies(state, layer, experts)
    return _filled(Qwen3MoeForCausalLM(config), state)


def as_mixtral(mixture: Qwen3MoeForCausalLM) -> MixtralForCausalLM:
    """Return the same model as a Mixtral, which has no dense layers: these become mixtures of copies.

    Raises ValueError where the mixture's gates do not add up to 1, as those of a Mixtral do.
    """
    config = mixture.config
    if not config.norm_topk_prob:
        raise ValueError("the gates of a Mixtral add up to 1: norm_topk_prob must be true")
    target = MixtralConfig(
        **_shape(mixture),
        num_local_experts=config.num_experts,
        num_experts_per_tok=config.num_experts_per_tok,
        head_dim=config.head_dim,
    )
    source = mixture.state_dict()
    state = {name: tensor for name, tensor in source.items() if not name.endswith(("q_norm.weight", "k_norm.weight"))}
    for name in (each for each in source if each.endswith(("q_proj.weight", "k_proj.weight"))):
        state[name] = source[name] / _LINEAR_SHARE  # exact, and the norms' weights undid no more than that
    for layer in range(config.num_hidden_layers):
        if f"model.layers.{layer}.mlp.gate_proj.weight" in state:
            state |= _copies(state, layer, config.num_experts)
    return _filled(MixtralForCausalLM(target), state)


def _shape(model: PreTrainedModel) -> dict[str, Any]:
    """Return the settings that all three families have alike."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
        "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    return {name: getattr(model.config, name) for name in names}


def _copies(state: dict[str, Tensor], layer: int, experts: int) -> dict[str, Tensor]:
    """Take a layer's dense MLP out of a state, and return as many copies of it and a router of zeros."""
    prefix = f"model.layers.{layer}.mlp"
    gate, up, down = (state.pop(f"{prefix}.{name}_proj.weight") for name in ("gate", "up", "down"))
    return {
        f"{prefix}.experts.gate_up_proj": torch.cat([gate, up]).repeat(experts, 1, 1),
        f"{prefix}.experts.down_proj": down.repeat(experts, 1, 1),
        f"{prefix}.gate.weight": torch.zeros(experts, gate.shape[1]),
    }


def _norm_weights(eps: float) -> tuple[float, float]:
    """Return weights of the norms of queries and of keys that undo √ε and the small share, exact in bfloat16.

    Only their product counts, so that of the pairs of bfloat16 numbers that is taken whose product is nearest.
    """
    wanted = eps / _LINEAR_SHARE**2
    near = torch.tensor(wanted**0.5).log2().floor().exp2() * torch.arange(128, 256) / 128
    pairs = [(float(query), float(torch.tensor(wanted / float(query)).bfloat16())) for query in near]
    return min(pairs, key=lambda pair: abs(pair[0] * pair[1] / wanted - 1))


def _filled(model: Model, state: Mapping[str, Tensor]) -> Model:
    model.load_state_dict(state, strict=True)
    model.tie_weights()
    model.train(mode=False)
    return model
