"""Limits of cost: by a table of measured parts, and by bytes that are counted."""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.architectures.cache_size import cache_bytes
from core.engine.architectures.cost_limit import CostLimit
from core.engine.architectures.description import ModelDescription, inspect_folder, require_structure
from core.engine.latency.costs import PartCosts, PassCosts, RoundCosts, Workload
from core.engine.latency.machine import machine_name
from core.engine.latency.model_widths import model_widths
from core.engine.latency.registry import engine_info
from core.engine.latency.variants import BlockVariant, ModelShape
from core.pipeline.messages import ModelSource
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.stages.run import StageContext
from core.pipeline.stages.search import run as search_stage
from core.pipeline.stages.search.spec import SearchOutput, SearchSpec
from core.progress import Progress
from secateur_wire.errors import InvalidTarget
from secateur_wire.job_body import Target
from tests.engine.tiny import make_model
from tests.recipes import recipe_of

CPU = torch.device("cpu")
FRONTIER = {"pattern": "structured", "output": {"layout": "per_layer"}, "parameters": {"round_to": 2}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def table_of(description: ModelDescription, prompt: int, **changes: Any) -> PartCosts:
    """Return costs of 10 ms an attention, 1/10 ms a channel, 20 ms the vocabulary and 4 ms the rest."""
    widths = model_widths(description)
    costs = PassCosts(
        attention={widths.block.kv_groups: 10.0}, ffn={widths.block.ffn_width: widths.block.ffn_width / 10},
        vocabulary={widths.vocabulary: 20.0}, rest=4.0,
    )  # fmt: skip
    workload = Workload(
        engine="transformers", type="float32", threads=len(os.sched_getaffinity(0)), prompt_tokens=prompt
    )  # fmt: skip
    both = {"prefill": costs, "decode": costs.model_copy(update={"rest": 14.0})}
    return PartCosts(
        **both, workload=workload, model=widths, machine=machine_name(), version=engine_info("transformers").version,
        measured_on=date(2026, 12, 1), layers=2, rounds=[RoundCosts(**both)],
    ).model_copy(update=changes)  # fmt: skip


def searched(folder: Path, work: Path, target: dict[str, Any], table: PartCosts | None = None) -> SearchOutput:
    """Run the stage of a job with this target."""
    work.mkdir()
    recipe = recipe_of("frontier", target=target, evaluation={"sequence_length": 16}, **FRONTIER)
    spec = SearchSpec(
        job="job_1", attempt=1, recipe=recipe, model=ModelSource(path=folder, name="m", revision="1"), work=work,
        previous=[], artifact=work / "artifact", calibration=None, evaluation=[], device="cpu", threads=None,
        activation_budget_bytes=1, table=table, workload=None if table is None else table.workload,
    )  # fmt: skip
    return search_stage.run(spec, StageContext(CPU, Progress(), lambda: 1))


@pytest.mark.parametrize(("kind", "rest"), [("latency_ratio", 4), ("decode_ratio", 14)])
def test_a_limit_of_time_is_a_share_of_what_the_table_says_of_the_dense_model(
    kind: str, rest: int, folder: Path, tmp_path: Path
) -> None:
    description = inspect_folder(folder)
    table = table_of(description, 16)
    output = searched(folder, tmp_path / "work", {kind: 0.7}, table)
    costs, block = output.costs, model_widths(description).block
    assert costs is not None and output.table == table and not output.notes
    dense = description.layers * (10 + block.ffn_width / 10) + 20 + rest
    assert costs.dense == pytest.approx(dense) and costs.limit == pytest.approx(0.7 * dense)
    for width in costs.units["channels"]:
        shape = ModelShape((BlockVariant(block.kv_groups, width),) * description.layers, description.vocabulary_size)
        predicted = table.predict(shape)
        asked = predicted.prefill_ms if kind == "latency_ratio" else predicted.decode_ms
        assert costs.fixed + description.layers * costs.of_layer({"channels": width}) == pytest.approx(asked)


def test_memory_is_that_of_the_files_and_of_the_cache(folder: Path, tmp_path: Path) -> None:
    description = inspect_folder(folder)
    structure = require_structure(description)
    costs = searched(folder, tmp_path / "work", {"memory_bytes": 10_000}).costs
    assert isinstance(costs, CostLimit) and costs.limit == 10_000
    cached = cache_bytes(structure, 16, 4)
    assert cached == description.layers * 2 * structure.layers[0].sizes["kv_heads"] * structure.facts["head_dim"] * 64
    assert costs.dense == pytest.approx(description.bytes + cached)
    channels = structure.layers[0].sizes["channels"]
    one = costs.of_layer({"channels": channels}) - costs.of_layer({"channels": channels - 2})
    assert one == 2 * 4 * structure.facts["channel_parameters"]


REFUSALS: dict[str, tuple[str, str, dict[str, Any], dict[str, Sequence[str]], str]] = {
    "no worth of layers": ("llm-pruner", "per_layer", {"decode_ratio": 0.7}, {}, "use output.layout 'uniform'"),
    "memory": ("depth", "uniform", {"memory_bytes": 10**6}, {}, "use target.bytes"),
    "another engine": ("llm-pruner", "uniform", {"decode_ratio": 0.7, "engine": "llama-cpp"}, {}, "leave it out"),
    "an unknown engine": ("frontier", "uniform", {"decode_ratio": 0.7, "engine": "mlx"}, {}, "is not known: use"),
    "no files": ("frontier", "uniform", {"decode_ratio": 0.7, "engine": "llama-cpp"}, {}, '"format": "gguf"'),
    "other types": (
        "frontier", "uniform", {"decode_ratio": 0.7, "engine": "openvino"}, {"openvino": ["INT2"]}, "no files of type",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "layout", "target", "exports", "says"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_chosen_by_cost_is_refused_with_what_would_be_right(
    method: str, layout: Any, target: dict[str, Any], exports: dict[str, Sequence[str]], says: str, folder: Path
) -> None:
    request = UnresolvedRequest(method, "structured", layout=layout, exports=exports, is_calibrated=True)
    with pytest.raises(InvalidTarget, match=says) as refused:
        resolve_target(inspect_folder(folder), request, Target(**target))
    assert refused.value.param in ("target.engine", f"target.{Target(**target).kind}")
