"""Each linear layer's own rate, by the Fisher information of a few sequences."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.options.sensitivity import LayerCosts, allocate
from core.engine.pruning import allocation
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.store import ResumeStore
from tests.engine.tiny import make_model, make_tokens


def rates_of(folder: Path, work: Path, tokens: Tensor, sparsity: float, budget: int = 2**30) -> dict[str, float]:
    opened = open_model(folder)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    stream = Stream(
        "gradients", tokens, streamed, ResumeStore(work, ""), ActivationBudget(budget), dtype=torch.float32,
        micro_batch=1, resumable=False, keeps_all=True,
    )  # fmt: skip
    inside = [linear for linear in opened.description.linears if linear.layer < len(streamed)]
    return allocation.fisher_rates(stream, inside, sparsity)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_curve_is_what_the_removed_weights_cost_by_the_whole_models_gradients(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the model as a whole, with every token's gradient at hand at once."""
    seen: list[LayerCosts] = []
    monkeypatch.setattr(allocation, "allocate", lambda costs, sparsity: seen.extend(costs) or allocate(costs, sparsity))
    monkeypatch.setattr(allocation, "_ROWS", 10_000)
    folder, tokens = make_model(tmp_path / "model", family), make_tokens(3)
    rates_of(folder, tmp_path / "work", tokens, 0.5)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for each in seen:

        def keep(module: Any, arguments: tuple[Tensor], output: Tensor, name: str = each.name) -> None:
            inputs[name], outputs[name] = arguments[0].detach(), output
            output.retain_grad()

        model.get_submodule(each.name).register_forward_hook(keep)
    logits = model(tokens).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    losses.mean(dim=1).sum().backward()
    assert seen
    for each in seen:
        weight = model.get_submodule(each.name).weight
        weight_OI = (weight.T if family == "gpt2" else weight).detach()
        x_NI = inputs[each.name].reshape(-1, weight_OI.shape[1]).double()
        gradient = outputs[each.name].grad
        assert gradient is not None
        g_NO = gradient.reshape(-1, weight_OI.shape[0]).double()
        cost_OI = weight_OI.double().square() * (g_NO.square().T @ x_NI.square())
        order = (weight_OI.abs() * x_NI.norm(dim=0)).flatten().argsort()
        for rate, increase in zip(each.rates, each.increases, strict=True):
            removed = order[: round(rate * len(order))]
            assert increase == pytest.approx(float(cost_OI.flatten()[removed].sum()), rel=2e-2), (each.name, rate)


@pytest.mark.parametrize("sparsity", [0.3, 0.97])
def test_together_the_layers_lose_what_was_asked_for(sparsity: float, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    rates = rates_of(folder, tmp_path / "work", make_tokens(4), sparsity)
    numel = {linear.name: linear.numel for linear in open_model(folder).description.linears}
    assert sum(rates[name] * numel[name] for name in rates) == pytest.approx(sparsity * sum(numel.values()), rel=1e-9)
    assert all(0 <= rate <= max(0.95, (1 + sparsity) / 2) + 1e-12 for rate in rates.values())
