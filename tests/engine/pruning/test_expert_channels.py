"""Channels of experts, and heads beside them: each loses its own, and the artifact gives the masked model's logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.architectures.masked import without_units
from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import removable_parameters
from core.engine.architectures.units import removed_kinds
from core.engine.models.experts import ExpertStacks
from core.engine.models.folder import ModelFolder
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.pruning.units.removal import UnitSet, layer_unit_sets
from secateur_wire.job_body import Layout
from tests.engine.pruning.test_experts import (
    GROUPED,
    NO_REFIT,
    PER_EXPERT,
    STACKED,
    differences,
    discovered,
    divergence,
    opened,
    pruned,
    routed,
    stock,
)
from tests.engine.tiny import make_tokens

DENSE_AND_MIXED = "jamba"
"""Mixture of which some blocks have experts, and others a network as wide as one."""


def cut(folder: ModelFolder, work: Path, method: str, *, layout: Layout = "uniform", **given: Any) -> PruneResult:
    """Remove half of the parameters of all channels, or of channels and heads where `given` asks for heads."""
    given = {"attention": "none"} | given
    structure, kinds = require_structure(folder.description), removed_kinds(given["attention"])
    removable = sum(removable_parameters(structure, layer, kinds) for layer in range(len(structure.layers)))
    share = 0.5 * removable / folder.description.parameters
    return pruned(folder, work, method, "structured", share, layout=layout, **given)


def of_layer(folder: ModelFolder, layer: int) -> tuple[UnitSet, dict[str, Tensor]]:
    """Return the channels of a layer, and its tensors by their names within it."""
    structure, prefix = require_structure(folder.description), f"{folder.family.blocks}.{layer}."
    (unit_set,) = layer_unit_sets(folder.family, structure, layer, removed_kinds("none")[-1:])
    return unit_set, {
        name.removeprefix(prefix): folder.read(name) for name in folder.tensors if name.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("model_type", "layout", "attention"),
    [
        (PER_EXPERT, "uniform", "none"),
        (DENSE_AND_MIXED, "uniform", "none"),
        (GROUPED, "uniform", "kv_groups"),
        (STACKED, "per_layer", "kv_groups"),
    ],
)
def test_the_classes_of_artifacts_give_the_logits_of_the_masked_model(
    model_type: str, layout: Layout, attention: str, tmp_path: Path
) -> None:
    """The queries of the third, and its keys with its values, are made of one latent each."""
    folder = opened(model_type)
    result = cut(folder, tmp_path, "l2-structured", layout=layout, attention=attention, compensation=NO_REFIT)
    rows = [row for row in result.layers if isinstance(row, UnitRow)]
    assert {row.kind for row in rows if row.after < row.before} == {"channels", *(["heads"] * (attention != "none"))}
    assert attention != "none" or all(row.after * 2 == row.before for row in rows)
    narrow = AutoModelForCausalLM.from_pretrained(
        tmp_path / "artifact", local_files_only=True, trust_remote_code=layout == "per_layer"
    ).eval()
    dense = stock(folder.path)
    without_units(dense, narrow)
    assert max(differences(narrow, dense)) < 1e-4


@pytest.mark.parametrize(("model_type", "attention"), [(STACKED, "none"), (PER_EXPERT, "kv_groups")])
def test_a_refit_and_the_frontier_come_closer_on_the_tokens_they_see(
    model_type: str, attention: str, tmp_path: Path
) -> None:
    """No token reaches one of the experts of the stacks; what is left of it is saved as that of the others."""
    folder = opened(model_type)
    found = []
    for method, given in (
        ("flap", {"compensation": NO_REFIT, "bias": False}),
        ("flap", {"compensation": {"refit": 1.0}, "bias": False}),
        ("frontier", {"drop_layers": 0}),
    ):
        work = tmp_path / str(len(found))
        cut(folder, work, method, attention=attention, **given)
        found.append(divergence(folder.path, work / "artifact", make_tokens()))
    plain, refitted, frontier = found
    assert refitted < plain * 0.6 and frontier < plain * 0.6


def test_heads_that_a_norm_spans_whose_width_no_setting_counts_stay() -> None:
    _, architecture = discovered("olmoe")
    assert "heads" in architecture.refused
    assert not architecture.axes("heads") and architecture.axes("channels")


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


def test_flap_scores_what_each_expert_reads_times_the_gates(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    cut(folder, tmp_path, "flap", compensation=NO_REFIT, bias=False)
    dense, experts = stock(folder.path), folder.family.experts
    assert experts is not None
    stacks = ExpertStacks(dense.get_submodule("model.layers.0"), experts)
    tokens = routed(dense, "model.layers.0.mlp.experts")
    left = stock(tmp_path / "artifact").state_dict()["model.layers.0.mlp.experts.down_proj"]
    for expert in range(len(stacks)):
        rows_N, inner_NI = tokens.gated_inner(stacks, expert)
        features = torch.zeros(len(tokens.hidden_NH), inner_NI.shape[1]).index_copy_(0, rows_N, inner_NI)
        weight_OI = stacks.matrix_OI(experts.giving, expert)
        score_I = features.double().var(0) * weight_OI.double().square().sum(0)
        kept = score_I.topk(left.shape[2]).indices.sort().values
        assert torch.equal(weight_OI[:, kept], left[expert])
