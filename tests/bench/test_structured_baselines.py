"""The baselines of the structured bench: what must hold of their equations, and that they remove what they say."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.structured.baselines.cell import cut
from bench.structured.baselines.least_squares import damped, error, refit, remove_in_groups
from bench.structured.baselines.osscar import local_search
from bench.structured.baselines.slicegpt import load_sliced, slice_model
from bench.structured.baselines.slimgpt import widths
from bench.structured.baselines.walk import dense_model
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from tests.engine.tiny import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return open_model(make_model(tmp_path_factory.mktemp("tiny") / "llama"))


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(96, (4, 24), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    result: Tensor = model(input_ids=tokens, use_cache=False).logits
    return result


def layer(seed: int) -> tuple[Tensor, Tensor]:
    """Weights [8, 32] and the damped moments of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(200, 12, generator=generator).double() @ torch.randn(12, 32, generator=generator).double()
    inputs += 0.3 * torch.randn(200, 32, generator=generator).double()
    return torch.randn(8, 32, generator=generator).double(), damped(inputs.T @ inputs)


def test_a_stream_that_is_rotated_and_not_sliced_gives_the_same_logits(folder: ModelFolder, tokens: Tensor) -> None:
    with torch.no_grad():
        dense = dense_model(folder)
    rotated = slice_model(folder, tokens, folder.config.hidden_size)
    expected = logits(dense, tokens)
    torch.testing.assert_close(logits(rotated, tokens), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_the_components_that_are_kept_are_the_principal_ones(folder: ModelFolder, tokens: Tensor) -> None:
    expected = logits(dense_model(folder), tokens)
    distances = [float((logits(slice_model(folder, tokens, width), tokens) - expected).norm()) for width in (8, 20, 31)]
    assert distances == sorted(distances, reverse=True) and distances[-1] < distances[0] / 2


@pytest.mark.parametrize(
    ("baseline", "share"),
    [("slicegpt", 0.2), ("slicegpt", 0.5), ("slimgpt", 0.2), ("slimgpt", 0.3), ("osscar", 0.2), ("osscar", 0.5)],
)
def test_a_baseline_removes_the_parameters_it_says_and_is_opened_again(
    baseline: str, share: float, folder: ModelFolder, tokens: Tensor, tmp_path: Path
) -> None:
    told = cut(baseline, folder, tokens, share, tmp_path / "cut")
    width = told["sliced_width"]
    model = (
        load_sliced(tmp_path / "cut")
        if width
        else load_model(open_model(tmp_path / "cut", own_artifact=True), torch.device("cpu"))
    )
    blocks = folder.description.structure
    assert blocks is not None
    removed = folder.description.parameters - sum(each.numel() for each in model.parameters())
    step = 8 * 3 * 32 * len(blocks.layers) if not width else 32 * 32 * len(blocks.layers)
    assert abs(removed - share * blocks.parameters) <= step / 2 + 1
    if baseline == "slimgpt":
        inner = [each.mlp.down_proj.in_features for each in model.model.layers]
        assert inner == sorted(inner, reverse=True) and inner[0] == 48 and len(set(inner)) > 1
    if width:
        torch.testing.assert_close(logits(model, tokens), logits(slice_model(folder, tokens, width), tokens))
    assert logits(model, tokens).isfinite().all()


@pytest.mark.parametrize("seed", range(5))
def test_local_search_lowers_the_layer_s_error_with_every_round_it_keeps(seed: int) -> None:
    weight, hessian = layer(seed)
    arbitrary = torch.arange(16)
    kept, errors = local_search(weight, hessian, arbitrary)
    assert len(errors) > 1 and all(after < before for before, after in pairwise(errors))
    assert len(kept) == 16
    assert errors[0] == error(weight, hessian, refit(weight, hessian, arbitrary))
    assert errors[-1] == pytest.approx(error(weight, hessian, refit(weight, hessian, kept)))
    greedy = remove_in_groups(weight, hessian, 16, 1, 1)
    _, from_greedy = local_search(weight, hessian, greedy)
    assert from_greedy[-1] <= from_greedy[0]


def test_the_fit_of_what_stays_is_the_least_squares_one_and_groups_of_one_choose_no_worse() -> None:
    weight, hessian = layer(0)
    kept = torch.arange(0, 32, 2)
    fitted = refit(weight, hessian, kept)
    least = error(weight, hessian, fitted)
    for place in range(3):
        other = fitted.clone()
        other[:, kept] += 0.01 * torch.randn(8, 16, generator=torch.Generator().manual_seed(place)).double()
        assert error(weight, hessian, other) > least
    errors = {
        size: error(weight, hessian, refit(weight, hessian, remove_in_groups(weight, hessian, 20, size, size)))
        for size in (1, 20)
    }
    assert errors[1] < errors[20]
    assert len(remove_in_groups(weight, hessian, 20, 8, 2)) == 12


def test_widths_fall_with_the_depth_and_add_up() -> None:
    for total in (30 * 1536, 34_000, 20_000, 12_000):
        found = widths(30, 1536, total, 8)
        assert abs(sum(found) - total) <= 30 * 4 and found == sorted(found, reverse=True)
        assert all(width % 8 == 0 and 8 <= width <= 1536 for width in found)
    with pytest.raises(ValueError, match="the first layer keeps all its channels"):
        widths(2, 48, 20, 8)
