"""Channels of experts: every one of a layer loses as many, each its own, and stock classes give the masked logits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.architectures.masked import without_units
from core.engine.architectures.description import require_structure
from core.engine.architectures.experts import ExpertChannels
from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.architectures.unit_counts import removable_parameters
from core.engine.architectures.unit_registry import removed_kinds
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.folder import ModelFolder
from core.engine.models.hooks import removed_after
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.pruning.units.removal import UnitSet, layer_unit_sets, remove_units
from core.engine.pruning.units.self_test import failed_cuts
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from tests.engine.pruning.test_experts import CPU, GROUPED, PER_EXPERT, STACKED, differences, opened, stock
from tests.engine.tiny import make_tokens

NO_REFIT = {"refit": 0}
TYPES = [PER_EXPERT, GROUPED, STACKED]
"""Channels of an expert of the first of them, which nothing else reads as many of."""
DENSE_AND_MIXED = "jamba"
"""Mixture of which some blocks have experts, and others a network as wide as one."""


def cut(folder: ModelFolder, work: Path, method: str, *, layout: Layout = "uniform", **given: Any) -> PruneResult:
    """Remove half of what goes as a job does, saved in `artifact` within `work` and opened with the pass's logits.

    That is channels, unless parameters ask for heads too. A progress and previous attempts may be given beside these.
    """
    setting = {name: given.pop(name) for name in ("progress", "previous") if name in given}
    given = {"attention": "none"} | given
    structure, kinds = require_structure(folder.description), removed_kinds(given["attention"])
    removable = sum(removable_parameters(structure, layer, kinds) for layer in range(len(structure.layers)))
    share = 0.5 * removable / folder.description.parameters
    request = resolve_request(
        folder.description, UnresolvedRequest(method, "structured", share, given, layout=layout, is_calibrated=True)
    )
    work.mkdir(parents=True, exist_ok=True)
    walk = walk_for(folder, request, device=CPU, calibration=make_tokens(), evaluations={}, work=work, **setting)
    result = walk.run()
    family = folder.family
    write_checkpoint(
        result.files, result.unchanged, folder.path, work / "artifact", config=result.config, discovered=family
    )
    reload_check(work / "artifact", result.verification, device=CPU, discovered=family)
    return result


def of_layer(folder: ModelFolder, layer: int) -> tuple[UnitSet, dict[str, Tensor]]:
    """Return the channels of a layer, and its tensors by their names within it."""
    structure, prefix = require_structure(folder.description), f"{folder.family.blocks}.{layer}."
    (unit_set,) = layer_unit_sets(folder.family, structure, layer, removed_kinds("none")[-1:])
    return unit_set, {
        name.removeprefix(prefix): folder.read(name) for name in folder.tensors if name.startswith(prefix)
    }


@pytest.mark.parametrize("model_type", [STACKED, DENSE_AND_MIXED])
def test_stock_classes_give_the_logits_of_the_masked_model(model_type: str, tmp_path: Path) -> None:
    folder = opened(model_type)
    result = cut(folder, tmp_path, "l2-structured", compensation=NO_REFIT)
    rows = [row for row in result.layers if isinstance(row, UnitRow)]
    assert rows and all(row.after * 2 == row.before for row in rows)
    narrow, dense = stock(tmp_path / "artifact"), stock(folder.path)
    without_units(dense, narrow)
    assert max(differences(narrow, dense)) < 1e-4


def test_each_expert_loses_its_own_channels_and_as_many_as_the_others(tmp_path: Path) -> None:
    folder = opened(GROUPED)
    cut(folder, tmp_path, "l2-structured", compensation=NO_REFIT)
    unit_set, tensors = of_layer(folder, 1)
    left = stock(tmp_path / "artifact").state_dict()
    giving = "mlp.experts.down_proj"
    kept = [
        [int((column == dense.T).all(-1).nonzero()) for column in narrow.T]
        for dense, narrow in zip(tensors[giving], left[f"model.layers.1.{giving}"], strict=True)
    ]
    assert {len(each) for each in kept} == {16} and len({tuple(each) for each in kept}) == len(kept) == 8
    assert unit_set.sets == 9, "the shared expert, whose width follows the same setting, is one more"
    assert left["model.layers.1.mlp.shared_experts.down_proj.weight"].shape[1] == 16
    dense_layer = {name: each for name, each in stock(folder.path).state_dict().items() if ".layers.0." in name}
    assert all(torch.equal(left[name], each) for name, each in dense_layer.items())


@pytest.mark.parametrize("model_type", TYPES)
def test_slices_of_stacks_take_what_belongs_to_a_channel(model_type: str) -> None:
    """A cut expert gives what the whole one does whose channels that go are zero, with gates before or beside."""
    folder = opened(model_type)
    unit_set, tensors = of_layer(folder, 1)
    generator = torch.Generator().manual_seed(0)
    width = unit_set.units // unit_set.sets
    kept = [
        number * width + each
        for number in range(unit_set.sets)
        for each in torch.randperm(width, generator=generator)[: width // 2].sort().values.tolist()
    ]
    left = remove_units(tensors, [unit_set], {unit_set.kind: kept})
    for unit_slice in unit_set.slices:
        if unit_slice.name in tensors:
            ones_U = torch.zeros(unit_set.units).index_fill_(0, torch.tensor(kept), 1.0)
            features = unit_slice.spread(ones_U, unowned=1.0)
            assert torch.equal(unit_slice.per_unit(features) > 0, unit_slice.per_unit(features.clone()).bool())
            assert left[unit_slice.name].numel() * 2 == tensors[unit_slice.name].numel()
            assert int(features.sum()) * 2 == features.numel()


def test_flap_scores_what_each_expert_reads_times_the_gates(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    cut(folder, tmp_path, "flap", compensation=NO_REFIT, bias=False)
    dense, experts = stock(folder.path), folder.family.experts
    assert experts is not None
    block = dense.get_submodule("model.layers.0")
    stacks, calls = ExpertStacks(block, experts), list[RoutedTokens]()

    def note(module: object, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        tokens = RoutedTokens.of(arguments, keywords)
        assert tokens is not None
        calls.append(tokens)

    with removed_after([stacks.module.register_forward_pre_hook(note, with_kwargs=True)]), torch.inference_mode():
        dense(input_ids=make_tokens(), use_cache=False)
    (tokens,) = calls
    left = stock(tmp_path / "artifact").state_dict()["model.layers.0.mlp.experts.down_proj"]
    for expert in range(len(stacks)):
        rows_N, inner_NI = tokens.gated_inner(stacks, expert)
        features = torch.zeros(len(tokens.hidden_NH), inner_NI.shape[1]).index_copy_(0, rows_N, inner_NI)
        weight_OI = stacks.matrix_OI(experts.giving, expert)
        score_I = features.double().var(0) * weight_OI.double().square().sum(0)
        kept = score_I.topk(left.shape[2]).indices.sort().values
        assert torch.equal(weight_OI[:, kept], left[expert])


def divergence(folder: Path, narrow: Path) -> float:
    with torch.inference_mode():
        one, other = (
            stock(each)(input_ids=make_tokens(), use_cache=False).logits.double().log_softmax(-1)
            for each in (folder, narrow)
        )
    return float((one.exp() * (one - other)).sum(-1).mean())


def test_a_refit_and_the_frontier_come_closer_on_the_tokens_they_see(tmp_path: Path) -> None:
    """No token reaches one of the experts of the stacks; what is left of it is saved as that of the others."""
    folder = opened(STACKED)
    found = []
    for method, given in (
        ("flap", {"compensation": NO_REFIT, "bias": False}),
        ("flap", {"compensation": {"refit": 1.0}}),
        ("frontier", {}),
    ):
        work = tmp_path / str(len(found))
        cut(folder, work, method, **given)
        found.append(divergence(folder.path, work / "artifact"))
    plain, refitted, frontier = found
    assert refitted < plain * 0.6 and frontier < plain * 0.6


def test_gates_in_another_order_fail_the_self_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened(PER_EXPERT)
    experts = folder.family.experts
    assert experts is not None and experts.channels is not None
    *_, giving = experts.channels.stacks
    wrong = ExpertChannels((UnitAxis(experts.parameter(experts.reading), "out", ("channel:2",)), giving))
    monkeypatch.delitem(LANGUAGE_ARCHITECTURES, folder.family.architecture, raising=False)
    failed = failed_cuts(folder.path, replace(folder.family, experts=replace(experts, channels=wrong)), tmp_path)
    assert "channels" in failed
