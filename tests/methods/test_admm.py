"""Masks and weights of ADMM: the asked zeros, nearer to the layer's outputs than what finds masks at once."""

import pytest
import torch
from torch import Tensor

from core.engine.architectures.structure import LinearShape
from core.engine.options.patterns import UNSTRUCTURED, Pattern, parse_pattern
from core.engine.pruning.compensation.refit import Fitted
from core.engine.pruning.input_statistics import InputStatistic, Statistic, relative_error
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.solver import PrunableLinear, Solver
from core.engine.pruning.zeros_pass import LayerRows
from core.methods.engine import build_method
from core.methods.registry import parse_parameters
from secateur_wire.errors import RunFailed


def statistic(seed: int, size: int = 64, *, dead: int = 0) -> InputStatistic:
    """Of inputs with a few strong features, as language models have."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) / size**0.5 * torch.logspace(-1, 1, size)
    inputs = torch.randn(8 * size, size, generator=generator) @ mixing
    inputs[:, :dead] = 0
    gathered = InputStatistic(Statistic.GRAM, sample_stride=1)
    gathered.update(inputs)
    return gathered


def ignore(text: str) -> None:
    return None


def pruned(
    method: str, seen: InputStatistic, target: LayerTarget, *, rows: int = 32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    size = len(seen.gram_II)
    weight = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    parameters = parse_parameters(method, {})
    (found,) = build_method(method, parameters, (Solver,)).prune(
        [PrunableLinear("layer", 0, weight, target)], seen, ignore
    )
    return weight, found


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.77])
def test_exactly_as_many_weights_go_as_asked(sparsity: float) -> None:
    weight, found = pruned("admm", statistic(0), LayerTarget(UNSTRUCTURED, sparsity))
    assert int((found == 0).sum()) == round(sparsity * weight.numel())
    if sparsity == 0:
        torch.testing.assert_close(found, weight, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("text", ["2:4", "4:8", "1:4"])
def test_of_every_group_as_many_stay_as_asked(text: str) -> None:
    pattern = parse_pattern(text)
    _, found = pruned("admm", statistic(1), LayerTarget(pattern, 0.5))
    assert pattern.keep is not None and pattern.of is not None
    assert ((found != 0).unflatten(1, (-1, pattern.of)).sum(-1) == pattern.keep).all()


@pytest.mark.parametrize("pattern", [UNSTRUCTURED, parse_pattern("2:4")], ids=["unstructured", "2:4"])
@pytest.mark.parametrize("sparsity", [0.5, 0.7])
def test_outputs_change_less_than_with_masks_found_at_once(pattern: Pattern, sparsity: float) -> None:
    for seed in range(5):
        seen = statistic(seed)
        errors = {}
        for method in ("admm", "sparsegpt", "wanda", "magnitude"):
            weight, found = pruned(method, seen, LayerTarget(pattern, sparsity), seed=seed)
            errors[method] = relative_error(float(seen.energy(weight)), float(seen.energy(weight - found)))
        assert min(errors, key=lambda name: errors[name]) == "admm", errors


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    _, found = pruned("admm", statistic(2, dead=5), LayerTarget(UNSTRUCTURED, 0.5))
    assert torch.isfinite(found).all()


def test_inputs_that_are_no_numbers_are_refused() -> None:
    seen = statistic(3)
    seen.gram_II[0, 0] = torch.nan
    target = LayerTarget(UNSTRUCTURED, 0.5)
    weight, found = pruned("admm", seen, target)
    rows = LayerRows()
    shape = LinearShape(name="layer", layer=0, out_features=len(weight), in_features=weight.shape[1])
    rows.add(PrunableLinear("layer", 0, weight, target), shape, Fitted(found), found, seen)
    with pytest.raises(RunFailed, match="layer: its inputs are infinite"):  # said where figures are read
        rows.complete()
