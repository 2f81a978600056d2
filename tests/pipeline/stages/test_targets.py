"""Targets in the engine: artifacts no larger than asked, the search for a latency, and limits of cost and of bytes."""

import math
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.structure import cache_bytes
from core.engine.architectures.unit_counts import CostLimit
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.exporters.packed.exporter import pack_folder
from core.engine.latency.costs import PartCosts, PassCosts, RoundCosts, Workload
from core.engine.latency.machine import machine_name
from core.engine.latency.model_widths import model_widths
from core.engine.latency.registry import engine_info
from core.engine.latency.variants import BlockVariant, ModelShape
from core.engine.models.folder import ModelFolder, open_model
from core.engine.removals.runs import LANGUAGE_RUNS
from core.pipeline.messages import ModelSource
from core.pipeline.plans import make_plan, walk_for
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.validation import ResolvedRequest
from core.pipeline.reports.report import LatencySearch, TimedShape
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.search import (
    Timing,
    least_sparsity,
    random_model,
    search_model,
    search_target,
)
from core.pipeline.stages.search_spec import SearchOutput, SearchSpec
from core.progress import Progress
from secateur_wire.errors import InvalidTarget, LatencyTooNoisy
from secateur_wire.job_body import Target
from tests.engine.crossing import crossed
from tests.engine.sweeping import request_for, save, sweep
from tests.engine.tiny import UNLIKE, make_model, make_tokens
from tests.families import LANGUAGE_MODELS
from tests.recipes import recipe_of

CPU = torch.device("cpu")


@crossed("name, way", LANGUAGE_MODELS, [("l2-structured", "parameters"), ("depth", "bytes")], UNLIKE)
def test_what_is_left_of_every_family_is_no_larger_than_asked(name: str, way: tuple[str, str], tmp_path: Path) -> None:
    method, kind = way
    folder = make_model(tmp_path / "model", name, dtype=torch.bfloat16)
    dense = inspect_folder(folder)
    asked = int(0.77 * getattr(dense, kind))
    opened = open_model(folder)
    resolved = resolve_target(opened.description, UnresolvedRequest(method), Target(**{kind: asked}))
    tokens = make_tokens()
    result = walk_for(opened, resolved, device=CPU, work=tmp_path, calibration=tokens, evaluations={}).run()
    artifact = tmp_path / "artifact"
    written = write_checkpoint(result.files, result.unchanged, folder, artifact, config=result.config)
    reached = inspect_folder(artifact).parameters if kind == "parameters" else written
    assert dense.structure is not None
    layer = dense.structure.layers[0].parameters * (1 if kind == "parameters" else 2)
    assert asked - layer < reached <= asked
    assert inspect_folder(artifact).parameters == dense.parameters - result.removed


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("wanda", {}),
        ("wanda", {"allocation": "owl"}),
        ("magnitude", {"scope": "model"}),
        ("random", {"include_lm_head": True}),
    ],
)
def test_zeros_are_as_many_as_the_target_needs(method: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama-untied", dtype=torch.bfloat16)
    dense = inspect_folder(folder)
    for kind, share in (("parameters", 0.613), ("bytes", 0.67)):
        asked = int(share * getattr(dense, kind))
        target = Target(**{kind: asked})
        resolved = resolve_target(
            dense, UnresolvedRequest(method, None, None, parameters, leaves_out_zeros=True), target
        )
        work = tmp_path / kind
        result = sweep(
            folder, work, calibration=make_tokens(), method=method, sparsity=resolved.sparsity, parameters=parameters
        )
        weights = sum(row.out_features for row in result.layers)  # type: ignore[union-attr]
        if kind == "parameters":
            reached, tolerance = dense.parameters - result.removed, weights
        else:
            reached = pack_folder(save(result, folder, work / "artifact"))["bound_bytes"]
            tolerance = 2 * weights
        assert asked - tolerance <= reached <= asked


SPARSITIES = [number / 40 for number in range(33)]


def fake(gain: float, *, noise: float = 0.0) -> Any:
    """A model whose prefill gets faster by `gain` of what is removed."""
    return lambda sparsity: Timing(1 - gain * sparsity, noise)


@pytest.mark.parametrize("asked", [0.95, 0.7, 0.5, 0.3])
def test_the_search_ends_at_the_least_sparsity_that_is_fast_enough(asked: float) -> None:
    told: list[TimedShape] = []
    shares: list[float] = []
    found = least_sparsity(SPARSITIES, asked, fake(1.0), lambda step, done: (told.append(step), shares.append(done))[0])
    assert shares == sorted(set(shares)) and shares[0] > 0 and shares[-1] <= 1, "progress moves with every shape"
    assert found.sparsity == next(each for each in SPARSITIES if 1 - each <= asked)
    assert found.steps == told and len(told) <= math.ceil(math.log2(len(SPARSITIES))) + 1
    assert min(step.sparsity for step in told if step.ratio <= asked) == found.sparsity


def test_timings_that_differ_by_more_than_the_gain_end_the_search_at_once() -> None:
    told: list[TimedShape] = []
    with pytest.raises(LatencyTooNoisy, match=r"differ by 35.0%, more than the gain of 30.0%") as refused:
        least_sparsity(SPARSITIES, 0.7, fake(1.0, noise=0.35), lambda step, done: told.append(step))
    assert len(told) == 1
    problem = refused.value.problem()
    assert (problem["code"], problem["param"], problem["retryable"]) == (
        "latency_too_noisy", "target.latency_ratio", False,
    )  # fmt: skip


def pruned_config(folder: ModelFolder, request: ResolvedRequest) -> PretrainedConfig:
    """Return the config of a model that the request has pruned."""
    assert request.removal is not None
    run = LANGUAGE_RUNS[request.removal.id]
    return folder.config_of(run.pruned_config(folder, make_plan(folder, request, device=CPU)))


class FakeClock:
    """Times a model by its parameters."""

    timed = 0

    def __init__(self, dense: ModelFolder, **setting: Any) -> None:
        self._dense = dense.description.parameters

    def against(self, pruned: Any) -> dict[str, float]:
        FakeClock.timed += 1
        return {"dense_ms": self._dense, "pruned_ms": pruned.num_parameters(), "dense_spread": 0.0}


@pytest.mark.parametrize("method", ["llm-pruner", "depth"])
def test_what_an_attempt_found_is_not_searched_for_again_under_the_same_circumstances(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{search_model.__module__}.DenseLatency", FakeClock)
    folder = open_model(make_model(tmp_path / "model", "llama"))

    def run(name: str, *previous: str, length: int = 16) -> LatencySearch:
        recipe = recipe_of(method, target={"latency_ratio": 0.75}, evaluation={"sequence_length": length})
        before = [tmp_path / each for each in previous]
        spec = spec_of(folder.path, tmp_path / name, recipe, previous=before)
        return search_model(spec, CPU, lambda step, done: None)

    first = run("one")
    description = folder.description
    request = request_for(folder, method, first.sparsity, at_least=True)
    shape = random_model(folder, pruned_config(folder, request), torch.float32, CPU)
    assert shape.num_parameters() <= 0.75 * description.parameters
    assert shape.num_parameters() / description.parameters == pytest.approx(1 - first.sparsity)
    before = FakeClock.timed
    assert run("two", "one") == first and FakeClock.timed == before
    run("three", "two", length=17)
    assert FakeClock.timed > before


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


def spec_of(folder: Path, work: Path, recipe: Recipe, **more: Any) -> SearchSpec:
    work.mkdir()
    return SearchSpec(
        job="job_1", attempt=1, recipe=recipe, model=ModelSource(path=folder, name="m", revision="1"), work=work,
        artifact=work / "artifact", calibration=None, evaluation=[], device="cpu", threads=None,
        activation_budget_bytes=1, **{"previous": []} | more,
    )  # fmt: skip


def searched(folder: Path, work: Path, target: dict[str, Any], table: PartCosts | None = None) -> SearchOutput:
    """Run the stage of a job with this target."""
    recipe = recipe_of("frontier", target=target, evaluation={"sequence_length": 16}, **FRONTIER)
    spec = spec_of(folder, work, recipe, table=table, workload=None if table is None else table.workload)
    return search_target(spec, StageContext(CPU, Progress(), lambda: 1))


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
