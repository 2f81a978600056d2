"""A mixture of experts made of a dense model: copies of its MLPs that are set apart and trained for some minutes.

Komatsuzaki et al. 2022 (arXiv:2212.05055) begin mixtures so. It has real text, real weights and experts that differ; it
has not been trained as a mixture that is published, and is no better than the model it was made of.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen3MoeForCausalLM

from bench.experts.layouts import as_qwen3_moe
from bench.experts.plan import Recipe
from core.engine.models.experts import RoutedTokens
from core.engine.models.hooks import removed_after

_CLUSTER_ROUNDS = 10
_ROUTER_SCALE = 4.0
"""Standard deviation of the logits that routers begin with."""


def upcycled(dense: LlamaForCausalLM, recipe: Recipe, tokens_NT: Tensor) -> tuple[Qwen3MoeForCausalLM, list[float]]:
    """Return the mixture, trained on windows of tokens [windows, time], and the loss of each step."""
    mixture = as_qwen3_moe(dense, experts=recipe.experts, top_k=recipe.top_k, every=recipe.every)
    generator = torch.Generator().manual_seed(recipe.seed)
    _begin_routers(mixture, tokens_NT[: 4 * recipe.batch], generator)
    _add_noise(mixture, recipe.noise, generator)
    return mixture, _train(mixture, recipe, tokens_NT)


def mixtures(model: PreTrainedModel) -> dict[str, Any]:
    """Return a model's modules of experts by name, whose parents have the routers as `gate`."""
    return {name: module for name, module in model.named_modules() if name.endswith(".mlp.experts")}


def routers(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return the weights of a model's routers, [experts, hidden_size] each."""
    parents = [name.removesuffix(".experts") for name in mixtures(model)]
    return [model.get_submodule(parent).get_parameter("gate.weight") for parent in parents]


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[dict[str, list[RoutedTokens]]]:
    """Collect the tokens that come to each module of experts, by name."""
    calls: dict[str, list[RoutedTokens]] = {name: [] for name in mixtures(model)}

    def note(name: str) -> Any:
        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            calls[name].append(tokens)

        return arrive

    hooks = [module.register_forward_pre_hook(note(name), with_kwargs=True) for name, module in mixtures(model).items()]
    with removed_after(hooks):
        yield calls


@torch.inference_mode()
def _begin_routers(mixture: Qwen3MoeForCausalLM, tokens_NT: Tensor, generator: torch.Generator) -> None:
    """Set each router's rows to centres of the directions of what its layer reads (spherical k-means)."""
    with watched(mixture) as calls:
        mixture(input_ids=tokens_NT, use_cache=False)
    for router, (call,) in zip(routers(mixture), calls.values(), strict=True):
        hidden_NH = call.hidden_NH.float()
        mean_H = hidden_NH.mean(0)
        rows_NH = nn.functional.normalize(hidden_NH - mean_H, dim=1)
        centres_EH = rows_NH[torch.randperm(len(rows_NH), generator=generator)[: len(router)]]
        for _ in range(_CLUSTER_ROUNDS):
            nearest_N = (rows_NH @ centres_EH.T).argmax(1)
            sums_EH = torch.zeros_like(centres_EH).index_add_(0, nearest_N, rows_NH)
            centres_EH = nn.functional.normalize(sums_EH + 1e-6 * centres_EH, dim=1)
        # What all tokens have in common is no reason to choose an expert, and a router has no bias.
        common_H = nn.functional.normalize(mean_H, dim=0)
        centres_EH = centres_EH - (centres_EH @ common_H)[:, None] * common_H
        router.copy_(centres_EH * (_ROUTER_SCALE / (hidden_NH @ centres_EH.T).std()))


@torch.no_grad()
def _add_noise(mixture: Qwen3MoeForCausalLM, noise: float, generator: torch.Generator) -> None:
    """Add noise to the channels of each expert that are not its own."""
    for module in mixtures(mixture).values():
        experts, _, channels = module.down_proj.shape
        width = channels // experts
        for expert in range(experts):
            others_I = torch.ones(channels)
            others_I[expert * width : (expert + 1) * width] = 0
            read_OI, give_OI = module.gate_up_proj[expert], module.down_proj[expert]
            scale = noise * float(read_OI.std())
            read_OI += scale * others_I.repeat(2)[:, None] * torch.randn(read_OI.shape, generator=generator)
            scale = noise * float(give_OI.std())
            give_OI += scale * others_I * torch.randn(give_OI.shape, generator=generator)


def _train(mixture: Qwen3MoeForCausalLM, recipe: Recipe, tokens_NT: Tensor) -> list[float]:
    mixture.requires_grad_(False)
    experts = [parameter for module in mixtures(mixture).values() for parameter in module.parameters()]
    gates = routers(mixture)
    mixture.bfloat16()
    for parameter in (*experts, *gates):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    groups = [{"params": experts, "lr": recipe.learning_rate}, {"params": gates, "lr": recipe.router_learning_rate}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    warm = max(recipe.steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 1 - step / recipe.steps)
    )
    mixture.config.router_aux_loss_coef = mixture.router_aux_loss_coef = recipe.balance
    losses: list[float] = []
    begun = time.perf_counter()
    for step in range(recipe.steps):
        places = torch.arange(step * recipe.batch, (step + 1) * recipe.batch) % len(tokens_NT)
        batch_NT = tokens_NT[places]
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = mixture(input_ids=batch_NT, labels=batch_NT, use_cache=False, output_router_logits=True)
        output.loss.backward()
        nn.utils.clip_grad_norm_([*experts, *gates], 1.0)
        optimiser.step()
        schedule.step()
        balance = recipe.balance * float(output.aux_loss.detach())
        losses.append(float(output.loss.detach()) - balance)
        print(f"step {step}: {losses[-1]:.3f} + {balance:.3f}, {time.perf_counter() - begun:.0f} s", flush=True)
    mixture.requires_grad_(False)
    mixture.bfloat16()
    return losses
