"""Shapes that the structured frontier chooses within a limit of cost: the least worth goes, and the limit holds."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.architectures.cost_limit import CostLimit
from core.engine.architectures.description import inspect_folder, require_structure
from core.engine.architectures.unit_registry import removed_kinds
from core.engine.cuts.removal import Removal
from core.engine.cuts.worth import WorthTable
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.removals.widths.worth import program_of
from core.engine.resume.kinds import SELECTION
from core.pipeline.passes import walk_for
from secateur_wire.errors import TargetUnreachable
from tests.engine.resuming import saved_state
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model
from tests.methods.test_layer_drop import IDLE, LAYERS, dropped, model_of
from tests.methods.test_structured_frontier import FITTED

CPU = torch.device("cpu")


def parameter_costs(folder: Path, removal: Removal, request: Any, share: float) -> CostLimit:
    """Return costs by which a model may have this share of its parameters."""
    description = inspect_folder(folder)
    structure = require_structure(description)
    offered = removal.offered_units(request.cut(description, round_to=2))
    assert offered is not None
    kinds = {kind.name: kind for kind in removed_kinds("kv_groups")}
    units = {
        name: {number: float(number * kinds[name].parameters(structure, 0)) for number in numbers}
        for name, numbers in offered.items()
    }
    rest = structure.layers[0].parameters - sum(max(each.values()) for each in units.values())
    return CostLimit(
        target="memory_bytes", is_ratio=False, basis="its parameters", limit=share * description.parameters,
        dense=description.parameters, fixed=description.parameters - structure.parameters, layer=rest, units=units,
    )  # fmt: skip


def within(
    folder: Path, work: Path, share: float, layout: str = "per_layer", **parameters: Any
) -> tuple[Path, PruneResult]:
    """Prune a model to at most this share of its parameters."""
    work.mkdir(parents=True)
    opened = open_model(folder)
    asked = {"round_to": 2, "forward_dtype": "float32"} | parameters
    request = request_for(opened, "frontier", 0.0, "structured", asked, layout=layout)
    assert request.removal is not None
    request = replace(request, costs=parameter_costs(folder, request.removal, request, share))
    walk = walk_for(opened, request, device=CPU, work=work, calibration=FITTED, evaluations={})
    result = walk.run()
    write_checkpoint(result.files, result.unchanged, folder, work / "artifact", config=result.config)
    return work / "artifact", result


def test_the_model_costs_no_more_than_its_limit_and_loses_what_is_worth_least(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", IDLE)
    dense = inspect_folder(folder).parameters
    artifact, result = within(folder, tmp_path / "work", 0.8, "uniform")
    left = inspect_folder(artifact, own_artifact=True)
    assert 0.75 * dense < left.parameters <= 0.8 * dense and left.parameters == dense - result.removed
    assert IDLE in dropped(result), "a layer that does nothing costs nothing to drop"
    counts = {row.after for row in result.layers if isinstance(row, UnitRow) and row.kind == "channels"}
    assert left.layout == "uniform" and len(counts) == 1
    assert any("expected to lose" in note for note in result.notes)
    assert any(note.startswith("Whole layers") and "the same cost" in note for note in result.notes)


def test_further_targets_come_from_the_table_of_one_job(tmp_path: Path) -> None:
    """A table that was saved gives the shape that a job of its own would have chosen for another limit."""
    folder = make_model(tmp_path / "model", num_hidden_layers=LAYERS)
    _, first = within(folder, tmp_path / "one", 0.8, drop_layers=0)
    _, second = within(folder, tmp_path / "two", 0.6, drop_layers=0)
    assert first.worth is not None and first.worth == second.worth
    table = WorthTable.model_validate(saved_state(tmp_path / "one", SELECTION)["worth"])
    assert table == first.worth and not table.runs
    opened = open_model(folder)
    request = request_for(opened, "frontier", 0.0, "structured", {"round_to": 2}, layout="per_layer")
    assert request.removal is not None
    costs = parameter_costs(folder, request.removal, request, 0.6)
    choice = program_of(table, costs).best(costs.limit)
    assert choice is not None
    chosen = [variants[option].units["channels"] for variants, option in zip(table.layers, choice.options, strict=True)]
    assert chosen == [row.after for row in second.layers if isinstance(row, UnitRow)]
    assert all(each[0].nats == 0 for each in table.layers), "a complete layer loses nothing"
    assert all(one.nats <= other.nats for each in table.layers for one, other in pairwise(each)), (
        "narrower layers lose more"
    )


def test_a_limit_that_no_shape_reaches_is_named_with_the_nearest(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    with pytest.raises(TargetUnreachable, match=r"target.memory_bytes .* the nearest is [\d,]+, by its parameters"):
        within(folder, tmp_path / "work", 0.01)
