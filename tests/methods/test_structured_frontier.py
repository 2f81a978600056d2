"""Frontier for a smaller model: its choice and its fit are least squares, in models that load and go on when killed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.architectures.describe import inspect_folder
from core.engine.models.tensors import load_tensors
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.pruning.streams.block_gradients import draw_tokens
from core.engine.resume.kinds import SELECTION
from core.methods.descriptions.frontier import StructuredFrontierParameters
from core.methods.frontier import output_metric, structured
from core.methods.frontier.fit import remove_groups, with_inputs, without_inputs
from tests.engine.crossing import crossed
from tests.engine.exporters.test_per_layer import prune
from tests.engine.pruning.test_structured import edit
from tests.engine.resuming import positions
from tests.engine.sweeping import last_hidden, newest_stream
from tests.engine.tiny import architecture_of, make_model, make_tokens
from tests.families import LANGUAGE_MODELS

FITTED = make_tokens(16)
IN_EVERY_RUN = ["llama", "gpt2", "gpt-neox", "gemma2"]


def cut(
    folder: Path, work: Path, layout: str, sparsity: float = 0.2, more: dict[str, Any] | None = None, **setting: Any
) -> tuple[Path, PruneResult]:
    parameters = {"round_to": 2, "forward_dtype": "float32"} | (more or {})
    setting = {"calibration": FITTED, "pattern": "structured", "layout": layout} | setting
    return prune(folder, work, "frontier", sparsity, parameters, **setting)


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights [6, 12], a Gram matrix of correlated inputs, and a metric."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    inputs_NI, gradients_NO = drawn(40, 12) @ drawn(12, 12), drawn(40, 6) * torch.arange(1, 7)
    return drawn(6, 12), inputs_NI.T @ inputs_NI, gradients_NO.T @ gradients_NO


def increase(weight_OI: Tensor, gram_II: Tensor, metric_OO: Tensor, kept: Tensor) -> tuple[float, Tensor]:
    """Return the least tr(M·E·G·Eᵀ), E = W − V, of all V with these columns alone, and V."""
    left_OI = torch.zeros_like(weight_OI)
    left_OI[:, kept] = torch.linalg.solve(gram_II[kept][:, kept], gram_II[kept] @ weight_OI.T).T
    error_OI = weight_OI - left_OI
    return float(torch.trace(metric_OO @ error_OI @ gram_II @ error_OI.T)), left_OI


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("size", "per_step"), [(1, 1), (1, 3), (3, 1)])
def test_what_is_left_of_a_removal_is_the_least_squares_of_what_is_left(seed: int, size: int, per_step: int) -> None:
    """And the first group that goes is the one of all that costs least."""
    weight_OI, gram_II, metric_OO = problem(seed)
    groups = 12 // size
    for keep in (groups - 1, groups // 2):
        changed_OI, inverse_II = weight_OI.clone(), torch.linalg.inv(gram_II)
        kept = remove_groups(changed_OI, inverse_II, metric_OO, size=size, keep=keep, per_step=per_step)
        features = torch.tensor([unit * size + place for unit in kept for place in range(size)])
        cost, best_OI = increase(weight_OI, gram_II, metric_OO, features)
        assert len(kept) == keep
        torch.testing.assert_close(changed_OI, best_OI, rtol=1e-6, atol=1e-8)
        if keep == groups - 1:
            every = [torch.arange(12)[torch.arange(12) // size != unit] for unit in range(groups)]
            assert cost == pytest.approx(min(increase(weight_OI, gram_II, metric_OO, each)[0] for each in every))


def test_the_columns_that_stay_are_the_ridge_solution_of_the_target() -> None:
    """The gradient of ‖α·Y + (1 − α)·XWᵀ − XVᵀ‖² + λ‖V − W‖² in them is zero: in a trial, and, with λ = 0, at last."""
    weight_OI, gram_II, _ = problem(0)
    inputs = InputStatistic(Statistic.GRAM, sample_stride=1)
    inputs._gram_II, inputs.target_OI = gram_II.clone(), problem(1)[0] @ gram_II
    parameters, left_I = StructuredFrontierParameters(refit=0.5, ridge=0.1), torch.tensor([0, 2, 3, 7, 8, 11])
    tried_OI = with_inputs(weight_OI, inputs, left_I, parameters, pytest.fail)
    passed = without_inputs(
        weight_OI, inputs, parameters.model_copy(update={"ridge": 0.0}), units=12, keep=6,
        features=lambda units: units, metric_OO=None, note=pytest.fail, refit=0.5,
    )  # fmt: skip
    aimed_OI = (weight_OI @ gram_II + inputs.target_OI) / 2
    penalty = 0.1 * gram_II.diagonal()[left_I].mean()
    for fitted_OI, kept_I, weight in ((tried_OI, left_I, penalty), (passed.weight_OI, passed.features, 0.0)):
        slope_OI = fitted_OI @ gram_II - aimed_OI + weight * (fitted_OI - weight_OI)
        torch.testing.assert_close(slope_OI[:, kept_I], torch.zeros(6, 6, dtype=torch.float64), atol=1e-8, rtol=0)
        assert set(fitted_OI.abs().sum(dim=0).nonzero().flatten().tolist()) == set(kept_I.tolist())


@crossed("name, layout", LANGUAGE_MODELS, ["uniform", "per_layer"], in_every_run=IN_EVERY_RUN)
def test_the_tokens_in_the_pass_are_those_that_what_is_left_gives(name: str, layout: str, tmp_path: Path) -> None:
    """And they are nearer to the dense model's than where nothing is fitted."""
    folder = make_model(tmp_path / "model", name)
    artifact, result = cut(folder, tmp_path / "work", layout)
    dense, left = last_hidden(folder, FITTED), last_hidden(artifact, FITTED)
    torch.testing.assert_close(newest_stream(tmp_path / "work", "calibration"), left, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(newest_stream(tmp_path / "work", "dense-calibration"), dense, atol=1e-5, rtol=1e-4)
    assert inspect_folder(folder).parameters - inspect_folder(artifact, own_artifact=True).parameters == result.removed
    assert result.removed > 0


def test_channels_that_nothing_reads_go_first_in_whichever_layer_they_are(tmp_path: Path) -> None:
    folder, family = make_model(tmp_path / "model", "gpt2"), architecture_of("gpt2")
    reader = f"{family.blocks}.1.{family.sublayers[1].output}.weight"
    unread = torch.arange(3, 35, 2)

    def silence(weight: Tensor) -> None:
        (weight.T if family.transposed else weight)[:, unread] = 0

    edit(folder, {reader: silence})
    description = inspect_folder(folder)
    assert description.structure is not None
    share = len(unread) * description.structure.facts["channel_parameters"] / description.parameters
    artifact, result = cut(folder, tmp_path / "work", "per_layer", share)
    rows = [row for row in result.layers if isinstance(row, UnitRow) and row.kind == "channels"]
    assert [row.before - row.after for row in rows] == [0, len(unread), 0]
    torch.testing.assert_close(last_hidden(artifact, FITTED), last_hidden(folder, FITTED), atol=1e-3, rtol=1e-3)


def test_the_metric_is_that_of_the_whole_models_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the output itself, so that a norm behind it counts; the same draws of tokens follow from the same logits."""
    seen: list[dict[str, Tensor]] = []

    def measure(*given: Any, **named: Any) -> output_metric.OutputCosts:
        costs = output_metric.measure_outputs(*given, **named)
        seen.extend(costs.units)
        return costs

    monkeypatch.setattr(structured, "measure_outputs", measure)
    folder, family = make_model(tmp_path / "model", "gemma2"), architecture_of("gemma2")
    cut(folder, tmp_path / "work", "uniform", calibration=FITTED[:4])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    linears = [model.get_submodule(f"{family.blocks}.{layer}.{family.sublayers[1].output}") for layer in range(3)]
    inputs: list[list[Tensor]] = [[] for _ in linears]
    gradients: list[list[Tensor]] = [[] for _ in linears]

    def watch(layer: int) -> Any:
        def hook(module: Any, arguments: tuple[Tensor], output: Tensor) -> None:
            inputs[layer].append(arguments[0].detach()[0])
            output.register_hook(lambda gradient: gradients[layer].append(gradient[0]))

        return hook

    for layer, linear in enumerate(linears):
        linear.register_forward_hook(watch(layer))
    generator = torch.Generator().manual_seed(0)
    for tokens in FITTED[:4]:
        logits = model(input_ids=tokens[None]).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, draw_tokens(logits.detach(), generator)).backward()
    (record,) = positions(tmp_path / "work", SELECTION)
    for layer, linear in enumerate(linears):
        g_NO, z_NI = torch.cat(gradients[layer]), torch.cat(inputs[layer])
        metric_OO = load_tensors(record / f"planned-{layer:05d}.safetensors")[f"{family.sublayers[1].output}.weight"]
        g_NO *= FITTED.shape[1] - 1  # of the summed loss
        tokens = 4 * (FITTED.shape[1] - 1)
        torch.testing.assert_close(metric_OO, g_NO.T @ g_NO / tokens, rtol=1e-3, atol=1e-6)
        costs_U = ((g_NO @ linear.weight) * z_NI).square().sum(dim=0).double().detach() / 2 / tokens
        torch.testing.assert_close(seen[layer]["channels"], costs_U, rtol=1e-3, atol=1e-9)


def test_tokens_are_drawn_as_often_as_they_are_predicted() -> None:
    shares_V = torch.tensor([0.0, 0.5, 0.0, 0.125, 0.375, 0.0])
    drawn = draw_tokens(shares_V.log().expand(4000, 6), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.bincount(minlength=6) / 4000, shares_V, atol=0.03, rtol=0)
    assert not (shares_V[drawn] == 0).any()
