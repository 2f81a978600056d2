"""Whole layers that the structured frontier drops in place of channels: those that do nothing, and no others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.counting import finished_share
from core.engine.architectures.description import inspect_folder
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.removals.widths.counts import plan_width_reduction
from core.methods.frontier import structured, trials
from core.methods.frontier.structured import StructuredFrontier
from core.methods.frontier.structured_info import StructuredFrontierParameters
from core.methods.frontier.trials import divergence
from secateur_wire.errors import InvalidParameters
from tests.engine.apart import Apart
from tests.engine.pruning.test_structured import edit
from tests.engine.reloading import reload_with_code
from tests.engine.sweeping import tensors_of
from tests.engine.tiny import architecture_of, make_model
from tests.engine.watching import Watching
from tests.methods.test_structured_frontier import FITTED, cut

LAYERS = 6
IDLE = 2


def model_of(folder: Path, *idle: int) -> Path:
    """Save a model of which these layers add nothing to the residual stream, the others much."""
    make_model(folder, num_hidden_layers=LAYERS)
    outputs = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
    edit(
        folder,
        {
            f"model.layers.{layer}.{name}": (lambda weight, layer=layer: weight.mul_(0 if layer in idle else 4))
            for layer in range(LAYERS)
            for name in outputs
        },
    )
    return folder


def dropped(result: PruneResult) -> list[int]:
    return [row.layer for row in result.layers if isinstance(row, UnitRow) and row.kind == "layer"]


def share_of_blocks(folder: Path, share: float) -> float:
    description = inspect_folder(folder)
    assert description.structure is not None
    return share * description.structure.parameters / description.parameters


def test_a_layer_that_does_nothing_goes_and_channels_make_up_the_rest(tmp_path: Path, apart: type[Apart]) -> None:
    folder = model_of(tmp_path / "model", IDLE)
    layout, sparsity = "per_layer", share_of_blocks(folder, 0.4)
    artifact, whole = cut(folder, tmp_path / "whole", layout, sparsity)
    reloaded = apart(reload_with_code, [(artifact, whole.verification)])
    assert dropped(whole) == [IDLE]
    description = inspect_folder(folder)
    assert abs(whole.removed - sparsity * description.parameters) <= 2 * 3 * description.hidden_size
    assert description.parameters - inspect_folder(artifact, own_artifact=True).parameters == whole.removed
    (note,) = [each for each in whole.notes if each.startswith("Whole layers")]
    assert note.endswith(f"Taken: without layer {IDLE}.")
    reloaded.wait()


def test_no_layer_goes_where_all_do_much(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model")
    _, result = cut(folder, tmp_path / "work", "per_layer", share_of_blocks(folder, 0.4))
    assert dropped(result) == []
    assert any(each.endswith("Taken: all layers.") for each in result.notes)


def test_as_many_layers_go_as_are_asked_for_and_fit(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", 1, 4)
    sparsity = share_of_blocks(folder, 0.4)
    _, result = cut(folder, tmp_path / "work", "uniform", sparsity, {"drop_layers": 2})
    assert dropped(result) == [1, 4]
    parameters = StructuredFrontierParameters(drop_layers=3)
    with pytest.raises(InvalidParameters, match="at most 2 whole layers can go, not 3"):
        plan_width_reduction(inspect_folder(folder), parameters, sparsity)


def test_the_last_layer_before_one_that_goes_aims_at_the_stream_behind_it(tmp_path: Path) -> None:
    folder, family = make_model(tmp_path / "model", "gpt2", n_layer=4), architecture_of("gpt2")
    description, source = inspect_folder(folder), open_model(folder)
    assert description.structure is not None
    share = description.structure.layers[0].parameters / description.parameters

    def states(model: Path) -> tuple[Tensor, ...]:
        with torch.no_grad():
            output = AutoModelForCausalLM.from_pretrained(model)(input_ids=FITTED, output_hidden_states=True)
        return tuple(output.hidden_states)

    dense, away = states(folder), []
    for refit in (0.0, 0.5, 1.0):
        parameters = {"drop_layers": 1, "protected_first": 1, "protected_last": 1, "refit": refit, "ridge": 0.001}
        artifact, result = cut(folder, tmp_path / f"{refit}", "per_layer", share, parameters)
        (gone,) = dropped(result)
        before = [f"{family.blocks}.{layer}." for layer in range(gone)]
        left = {each: value for each, value in tensors_of(result).items() if each.startswith(tuple(before))}
        changed = [each for each, value in left.items() if not torch.equal(value, source.read(each))]
        assert changed == ([f"{before[-1]}{next(reversed(family.added_to_stream))}.weight"] if refit else [])
        away.append(float((states(artifact)[gone] - dense[gone + 1]).norm()))
    assert away[2] < 0.9 * away[0], away
    assert away[1] ** 2 == pytest.approx(away[0] ** 2 / 4 + away[2] ** 2 * 3 / 4, rel=0.01), "half of the way"


def test_trials_are_measured_by_the_divergence_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that prunes as the pass, on the tokens it is measured on, has the divergence of what the pass leaves.

    Trials are a part of the progress, between measurements and the pass, and each moves it.
    """
    seen: list[tuple[float, Tensor]] = []
    shares: list[float] = []
    watching = Watching()
    folder, tokens = model_of(tmp_path / "model", IDLE), FITTED[:4]
    monkeypatch.setattr(trials.Trials, "_fitting_sequences", lambda self: self._calibration())
    monkeypatch.setattr(structured, "_Trial", lambda parameters, costs: StructuredFrontier(parameters))

    def watch(streamed: StreamedModel, batches: Sequence[Tensor], *models: Any) -> float:
        found = divergence(streamed, batches, *models)
        seen.append((found, torch.cat(list(batches))))
        shares.append(finished_share())
        return found

    monkeypatch.setattr(trials, "divergence", watch)
    artifact, _ = cut(
        folder, tmp_path / "work", "uniform", share_of_blocks(folder, 0.4), calibration=tokens, progress=watching
    )
    assert shares == sorted(shares) and 0 < shares[-1] < 1
    (_, measured), (tried_from, tried), (blocks_from, _), *_ = watching.parts
    assert 0 < measured == tried_from < tried == blocks_from < 1
    with torch.no_grad():
        dense, left = (
            AutoModelForCausalLM.from_pretrained(each)(input_ids=seen[-1][1]).logits.log_softmax(dim=-1)
            for each in (folder, artifact)
        )
    expected = float((dense.exp() * (dense - left)).sum(dim=-1).mean())
    assert min(each for each, _ in seen[1:]) == pytest.approx(expected, rel=1e-3)
