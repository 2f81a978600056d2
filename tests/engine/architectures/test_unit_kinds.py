"""Kinds of units: each is a module that nothing else names, and a further one is counted and chosen like the others."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import torch

from core.engine.architectures import unit_kinds
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.global_budget import global_unit_budget
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import WidthRequest, counts_for_ratio, removable_parameters
from core.engine.architectures.unit_kind import AttentionMode, Block, KindFacts, UnitKind
from core.engine.architectures.unit_registry import BLOCK_KINDS, removed_kinds
from core.engine.pruning.schedule import counts_at
from core.engine.pruning.units.ranking import ranked_counts
from core.engine.pruning.units.removal import KeptUnits, highest

ROOT = Path(__file__).parents[3]
STRUCTURE = ModelStructure.model_validate({
    "head_dim": 8, "heads_divide_hidden": False, "channel_parameters": 30, "head_parameters": 400,
    "kv_group_parameters": 1200,
    "layers": [{"channels": 256, "heads": 8, "kv_heads": 4, "bands": 6, "parameters": 0}] * 3,
})  # fmt: skip


class Bands(UnitKind):
    """Units of 500 parameters, of which each half of a layer keeps as many."""

    name = "bands"
    rank = 15

    def is_removed(self, attention: AttentionMode) -> bool:
        return True

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        return KindFacts({}, [])

    def settings(self, family: Architecture) -> Mapping[str, str]:
        return {"bands": "num_bands"}

    def units(self, shape: LayerShape) -> int:
        return shape.sizes["bands"]

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        return 500

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        return {"band": (1, 0)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        return {"bands": units}

    def parts(self, shape: LayerShape) -> int:
        return 2


HEADS, CHANNELS = removed_kinds("kv_groups")
KINDS = (HEADS, Bands(), CHANNELS)


def test_the_registry_has_each_kind_once_and_the_ways_to_count_it_by_the_attention_mode() -> None:
    assert [each.name for each in BLOCK_KINDS] == ["heads", "channels", "experts"]
    counted: dict[AttentionMode, list[str]] = {
        "kv_groups": ["KVGroups", "Channels"],
        "query_heads": ["QueryHeads", "Channels"],
        "none": ["Channels"],
    }
    for mode, classes in counted.items():
        assert [type(each).__name__ for each in removed_kinds(mode)] == classes


def test_only_options_of_widths_name_a_module_of_a_kind() -> None:
    modules = "|".join(each.name for each in iter_modules(unit_kinds.__path__))
    named = re.compile(rf"unit_kinds\.({modules})")
    files = [file for package in ("api", "core", "worker") for file in (ROOT / package).rglob("*.py")]
    naming = {file.relative_to(ROOT).as_posix() for file in files if named.search(file.read_text(encoding="utf-8"))}
    assert naming == {"core/engine/removals/widths/checks.py", "core/engine/removals/widths/counts.py"}


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_a_third_kind_loses_its_share_and_keeps_as_many_in_each_part(ratio: float) -> None:
    total = sum(removable_parameters(STRUCTURE, layer, KINDS) for layer in range(3))
    counts, *_ = counts_for_ratio(STRUCTURE, WidthRequest(KINDS, total, ratio, round_to=8))
    assert abs(counts.removed - ratio * total / 3) <= 8 * 30
    assert counts.units["bands"] in (2, 4, 6) and abs(1 - counts.units["bands"] / 6 - ratio) <= 1 / 3
    shape = STRUCTURE.layers[0]
    assert counts_at(0, counts, shape, KINDS).units == {"heads": 4, "bands": 6, "channels": 256}
    scores = {each.name: torch.arange(float(each.units(shape))) for each in KINDS}
    kept = highest(shape, KINDS, scores, counts)
    each = counts.units["bands"] // 2
    assert kept.get("bands", list(range(6))) == [*range(3 - each, 3), *range(6 - each, 6)]
    assert KeptUnits(layers={0: kept}).counts(STRUCTURE, KINDS).layers[0] == counts


def test_a_third_kind_competes_with_the_others_where_layers_may_differ() -> None:
    total = sum(removable_parameters(STRUCTURE, layer, KINDS) for layer in range(3))
    budget = global_unit_budget(STRUCTURE, WidthRequest(KINDS, total, 0.2, round_to=8, protected=frozenset({2})))
    scores = [{each.name: torch.full((each.units(STRUCTURE.layers[0]),), 1e6) for each in KINDS} for _ in range(3)]
    scores[1]["bands"] = torch.full((6,), 1e-6)
    counts = ranked_counts(STRUCTURE, scores, KINDS, budget)
    assert [each.units["bands"] for each in counts][1:] == [2, 6] and counts[2].removed == 0
    assert abs(sum(each.removed for each in counts) - 0.2 * total) <= 8 * 30
