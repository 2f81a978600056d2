"""A Llama model in a narrower residual stream, with fewer query heads and a KV head for each of them.

SliceGPT (Ashkboos 2024, arXiv:2401.15024) rotates the stream and keeps the directions of the most variance. A rotation
for each layer needs more matrices than Llama has, so one subspace serves all layers here. `kept_basis` chooses it, and
within it the axes in which the gains of the last norm are diagonal again, so that the embeddings stay tied.

`reshaped` goes through the layers with both models at once. Each matrix begins as the dense one in the new axes, with
the gains of the norm before it, all but their size. It is then fitted by least squares: from what the narrow model has
at this place to what the dense model has. In as many dimensions and with all heads the start is exact, and nothing is
left to fit.

Suffixes of shapes: N tokens, H dense and K narrow dimensions of the stream, O outputs, I inputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import sqrt

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from core.engine.models.hooks import removed_after

_RIDGE = 0.03
"""Pull towards the start, as a share of each input's sum of squares."""


@torch.no_grad()
def stream_moment(model: LlamaForCausalLM, tokens_BT: Tensor) -> Tensor:
    """Return the second moment [H, H] of what the norms give without their gains: the mean over norms and tokens."""
    size = model.config.hidden_size
    moment_HH = torch.zeros(size, size, dtype=torch.float64)

    def add(norm: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        inputs_NH = _unscaled(norm, arguments[0]).flatten(0, -2)
        moment_HH.add_((inputs_NH.T @ inputs_NH).double())

    norms = [module for module in model.modules() if isinstance(module, LlamaRMSNorm)]
    with removed_after([norm.register_forward_hook(add) for norm in norms]):
        for row_T in tokens_BT:
            model.model(input_ids=row_T[None], use_cache=False)
    mean_HH: Tensor = moment_HH / (len(norms) * tokens_BT.numel())
    return mean_HH


def kept_basis(moment_HH: Tensor, gain_H: Tensor, kept: int) -> Tensor:
    """Return an orthonormal basis [H, kept] of the directions of the largest moment.

    Its axes are those in which the diagonal matrix of the gains, cut to the subspace, is diagonal.
    """
    directions_HK = torch.linalg.eigh(moment_HH.double()).eigenvectors[:, -kept:]
    axes_KK = torch.linalg.eigh(directions_HK.T @ (gain_H.double()[:, None] * directions_HK)).eigenvectors
    basis_HK: Tensor = (directions_HK @ axes_KK).to(gain_H.dtype)
    return basis_HK


@torch.no_grad()
def reshaped(model: LlamaForCausalLM, basis_HK: Tensor, heads: int, tokens_BT: Tensor) -> LlamaForCausalLM:
    """Return the model in a basis of its stream, with so many query and KV heads, fitted on tokens [batch, time].

    Raises ValueError where the model's embeddings are not tied, or where it has fewer heads.
    """
    if not model.config.tie_word_embeddings or heads > model.config.num_attention_heads:
        raise ValueError(f"tied embeddings and at least {heads} query heads are needed")
    narrow: LlamaForCausalLM = LlamaForCausalLM(_narrow_config(model.config, basis_HK.shape[1], heads)).eval()
    narrow.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ basis_HK)
    dense_BTH, narrow_BTK = model.model.embed_tokens(tokens_BT), narrow.model.embed_tokens(tokens_BT)
    positions = model.model.rotary_emb(dense_BTH, torch.arange(tokens_BT.shape[1])[None])
    for number, (layer, own) in enumerate(zip(model.model.layers, narrow.model.layers, strict=True)):
        print(f"layer {number}", flush=True)
        dense_BTH, narrow_BTK = _fit_layer(layer, own, basis_HK, (dense_BTH, narrow_BTK), positions)
    wanted_NK = (model.model.norm(dense_BTH) @ basis_HK).flatten(0, -2)
    given_NK = _unscaled(narrow.model.norm, narrow_BTK).flatten(0, -2)
    narrow.model.norm.weight.copy_((wanted_NK * given_NK).sum(0) / given_NK.square().sum(0))
    return narrow


def fitted(start_OI: Tensor, inputs_NI: Tensor, wanted_NO: Tensor) -> Tensor:
    """Return the matrix from inputs to wanted outputs with the least squares, pulled a little towards the start."""
    moment_II = (inputs_NI.T @ inputs_NI).double()
    moment_II.diagonal().mul_(1 + _RIDGE).add_(1e-12 * float(moment_II.diagonal().mean()))
    missing_NO = wanted_NO - inputs_NI @ start_OI.T
    step_IO = torch.linalg.solve(moment_II, (inputs_NI.T @ missing_NO).double())
    weight_OI: Tensor = start_OI + step_IO.T.to(start_OI.dtype)
    return weight_OI


def least_needed_heads(inputs_NI: Tensor, weight_OI: Tensor, head_size: int, kept: int) -> list[int]:
    """Return the heads to keep, in order, one left out after the other.

    The head left out is the one whose output the others' best replace: the trace of W_h S W_hᵀ is smallest, where S is
    the Schur complement of its moment.
    """
    heads = list(range(inputs_NI.shape[1] // head_size))
    moment_II = (inputs_NI.T @ inputs_NI).double()
    weight_OI = weight_OI.double()

    def loss(head: int) -> float:
        own_I, others_I = _columns([head], head_size), _columns([each for each in heads if each != head], head_size)
        across = moment_II[others_I][:, own_I]
        inner = moment_II[others_I][:, others_I]
        inner.diagonal().mul_(1 + _RIDGE)
        left = moment_II[own_I][:, own_I] - across.T @ torch.linalg.solve(inner, across)
        return float((weight_OI[:, own_I] @ left * weight_OI[:, own_I]).sum())

    while len(heads) > kept:
        heads.remove(min(heads, key=loss))
    return heads


def _fit_layer(
    layer: LlamaDecoderLayer,
    own: LlamaDecoderLayer,
    basis_HK: Tensor,
    streams: tuple[Tensor, Tensor],
    positions: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Fit a narrow layer to a dense one; return both streams behind them."""
    dense, narrow = streams
    size, groups = layer.self_attn.head_dim, layer.self_attn.num_key_value_groups
    attend = {"position_embeddings": positions, "attention_mask": None}

    read = layer.input_layernorm(dense)
    with _inputs_of(layer.self_attn.o_proj) as given:
        change = layer.self_attn(hidden_states=read, **attend)[0]
    middle = dense + change
    weights = _token_weights(middle)
    weighted_NI = (given[0] * weights).flatten(0, -2)
    count = own.self_attn.o_proj.in_features // size
    heads = least_needed_heads(weighted_NI, layer.self_attn.o_proj.weight, size, count)
    key_heads = [head // groups for head in heads]
    for norm, own_norm in (
        (layer.input_layernorm, own.input_layernorm),
        (layer.post_attention_layernorm, own.post_attention_layernorm),
    ):
        own_norm.weight.fill_(_size_of_gains(norm))
    given_own = own.input_layernorm(narrow)
    for name, chosen in (("q_proj", heads), ("k_proj", key_heads), ("v_proj", key_heads)):
        rows_OH = _linear(layer.self_attn, name).weight[_columns(chosen, size)]
        _fit_reader(_linear(own.self_attn, name), rows_OH, layer.input_layernorm, basis_HK, (read, given_own))
    start_KI = basis_HK.T @ layer.self_attn.o_proj.weight[:, _columns(heads, size)]
    narrow = _fit_writer(
        own.self_attn.o_proj, start_KI, (narrow, middle @ basis_HK, weights),
        lambda: own.self_attn(hidden_states=given_own, **attend),
    )  # fmt: skip

    read, given_own = layer.post_attention_layernorm(middle), own.post_attention_layernorm(narrow)
    for name in ("gate_proj", "up_proj"):
        rows_OH = _linear(layer.mlp, name).weight
        _fit_reader(_linear(own.mlp, name), rows_OH, layer.post_attention_layernorm, basis_HK, (read, given_own))
    after = middle + layer.mlp(read)
    start_KI = basis_HK.T @ layer.mlp.down_proj.weight
    targets = (narrow, after @ basis_HK, _token_weights(after))
    return after, _fit_writer(own.mlp.down_proj, start_KI, targets, lambda: own.mlp(given_own))


def _fit_reader(
    own: nn.Linear, rows_OH: Tensor, norm: LlamaRMSNorm, basis_HK: Tensor, inputs: tuple[Tensor, Tensor]
) -> None:
    """Set a matrix behind a norm: from the narrow inputs to what the dense rows give of the dense inputs."""
    dense_NH, narrow_NK = (each.flatten(0, -2) for each in inputs)
    scale = sqrt(basis_HK.shape[1] / basis_HK.shape[0])  # a mean over fewer squares is larger where none was lost
    start_OK = (rows_OH * (norm.weight / _size_of_gains(norm))) @ basis_HK / scale
    own.weight.copy_(fitted(start_OK, narrow_NK, dense_NH @ rows_OH.T))


def _fit_writer(
    own: nn.Linear, start_KI: Tensor, targets: tuple[Tensor, Tensor, Tensor], run: Callable[[], object]
) -> Tensor:
    """Set a matrix that adds to the stream, and return the stream after it.

    `targets` are the stream before, the stream that is wanted after, and the weights of tokens. `run` runs the layer.
    """
    before, wanted, weights = targets
    with _inputs_of(own) as given:
        run()
    inputs = given[0]
    missing_NK = ((wanted - before) * weights).flatten(0, -2)
    own.weight.copy_(fitted(start_KI, (inputs * weights).flatten(0, -2), missing_NK))
    after: Tensor = before + own(inputs)
    return after


@contextmanager
def _inputs_of(linear: nn.Linear) -> Iterator[list[Tensor]]:
    """Yield a list that is filled with what a layer reads."""
    inputs: list[Tensor] = []
    with removed_after([linear.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))]):
        yield inputs


def _linear(module: nn.Module, name: str) -> nn.Linear:
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _size_of_gains(norm: LlamaRMSNorm) -> float:
    """Return the gain that stays in a norm: without it matrices would be ten times smaller than others, and a step of
    training, which is as large for all of them, ten times larger.
    """
    return float(norm.weight.square().mean().sqrt())


def _unscaled(norm: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a norm gives without its gains."""
    assert isinstance(norm, LlamaRMSNorm)
    return inputs * torch.rsqrt(inputs.square().mean(-1, keepdim=True) + norm.variance_epsilon)


def _token_weights(stream_BTH: Tensor) -> Tensor:
    """Return one divided by the size of each token's stream: a few tokens have a hundred times that of others."""
    return torch.rsqrt(stream_BTH.square().mean(-1, keepdim=True))


def _columns(heads: list[int], size: int) -> Tensor:
    return torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])


def _narrow_config(config: LlamaConfig, size: int, heads: int) -> LlamaConfig:
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return LlamaConfig.from_dict(
        config.to_dict()
        | {"hidden_size": size, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": head_size}
    )
