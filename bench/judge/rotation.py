"""A Llama model in other axes of its residual stream and of its values: the same function, with other weights.

SliceGPT (Ashkboos 2024, arXiv:2401.15024) and QuaRot (Ashkboos 2024, arXiv:2404.00456) rotate models in this way.

Suffixes of shapes: H dimensions of the stream, O outputs, I inputs, D dimensions of a head.
"""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM


def random_rotation(size: int, draws: torch.Generator) -> Tensor:
    """Return a random orthogonal matrix [size, size] in float64, all directions being equally likely."""
    factors = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=draws))
    rotation: Tensor = factors.Q * factors.R.diagonal().sign()
    return rotation


@torch.no_grad()
def rotated(model: LlamaForCausalLM, seed: int = 0) -> LlamaForCausalLM:
    """Return a model that computes the same as this one, in axes that the seed draws.

    Gains of norms move into the matrices behind them, all but their mean size, because a norm commutes with a rotation
    only without them. Those of the last norm move into the head, which is therefore no longer tied to the embeddings.
    Values of a KV head are rotated too, and back in the output projection.
    """
    draws = torch.Generator().manual_seed(seed)
    config = LlamaConfig.from_dict(model.config.to_dict() | {"tie_word_embeddings": False})
    turned: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    nn.Module.to(turned, model.dtype)
    axes_HH = random_rotation(config.hidden_size, draws)
    turned.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.double() @ axes_HH)
    for layer, own in zip(model.model.layers, turned.model.layers, strict=True):
        attention, own_attention = layer.self_attn, own.self_attn
        size, groups = attention.head_dim, attention.num_key_value_groups
        heads = attention.k_proj.out_features // size
        values = [random_rotation(size, draws) for _ in range(heads)]
        gains_H = _moved_gains(layer.input_layernorm, own.input_layernorm)
        for name in ("q_proj", "k_proj", "v_proj"):
            weight_OH = attention.get_submodule(name).weight.double() * gains_H @ axes_HH
            if name == "v_proj":
                weight_OH = torch.block_diag(*values).T @ weight_OH
            own_attention.get_submodule(name).weight.copy_(weight_OH)
        back_II = torch.block_diag(*(value_DD for value_DD in values for _ in range(groups)))
        own_attention.o_proj.weight.copy_(axes_HH.T @ attention.o_proj.weight.double() @ back_II)
        gains_H = _moved_gains(layer.post_attention_layernorm, own.post_attention_layernorm)
        for name in ("gate_proj", "up_proj"):
            own.mlp.get_submodule(name).weight.copy_(layer.mlp.get_submodule(name).weight.double() * gains_H @ axes_HH)
        own.mlp.down_proj.weight.copy_(axes_HH.T @ layer.mlp.down_proj.weight.double())
    gains_H = _moved_gains(model.model.norm, turned.model.norm)
    turned.lm_head.weight.copy_(model.lm_head.weight.double() * gains_H @ axes_HH)
    return turned


def _moved_gains(norm: nn.Module, own: nn.Module) -> Tensor:
    """Leave the mean size of a norm's gains in the new model's norm, and return what is left of them [H], in float64.

    Without a size in the norm, the matrices behind it would be many times smaller than others.
    """
    gains_H = norm.get_parameter("weight").double()
    size = gains_H.square().mean().sqrt()
    own.get_parameter("weight").fill_(float(size))
    return gains_H / size
