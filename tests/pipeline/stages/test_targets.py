"""Targets in the engine: artifacts that are no larger than asked, and the search for a latency."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from core.engine.architectures.description import inspect_folder
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.exporters.packed.exporter import pack_folder
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.results import PruneResult
from core.engine.removals.run import language_run
from core.engine.resume.kinds import LATENCY, STATE
from core.pipeline.messages import ModelSource
from core.pipeline.passes import walk_for
from core.pipeline.plans import make_plan
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.validation import ResolvedRequest
from core.pipeline.reports.report import LatencySearch, TimedShape
from core.pipeline.stages.search import run as latency_search
from core.pipeline.stages.search.run import (
    Timing,
    random_model,
    search,
    search_model,
)
from core.pipeline.stages.search.spec import SearchSpec
from secateur_wire.errors import LatencyTooNoisy
from secateur_wire.job_body import Target
from tests.engine.crossing import crossed
from tests.engine.resuming import positions, saved_state
from tests.engine.sweeping import request_for, save, sweep
from tests.engine.tiny import UNLIKE, make_model, make_tokens
from tests.families import LANGUAGE_MODELS
from tests.recipes import recipe_of

CPU = torch.device("cpu")


def prune_to(folder: Path, work: Path, method: str, target: Target) -> PruneResult:
    """Remove groups until the target is met."""
    opened = open_model(folder)
    resolved = resolve_target(opened.description, UnresolvedRequest(method), target)
    work.mkdir(parents=True)
    return walk_for(
        opened,
        resolved,
        device=CPU,
        work=work,
        calibration=make_tokens(),
        evaluations={},
    ).run()


@crossed("name, way", LANGUAGE_MODELS, [("l2-structured", "parameters"), ("depth", "bytes")], UNLIKE)
def test_what_is_left_of_every_family_is_no_larger_than_asked(name: str, way: tuple[str, str], tmp_path: Path) -> None:
    method, kind = way
    folder = make_model(tmp_path / "model", name, dtype=torch.bfloat16)
    dense = inspect_folder(folder)
    asked = int(0.77 * getattr(dense, kind))
    result = prune_to(folder, tmp_path / "work", method, Target(**{kind: asked}))
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
    found = search(SPARSITIES, asked, fake(1.0), lambda step, done: (told.append(step), shares.append(done))[0])
    assert shares == sorted(set(shares)) and shares[0] > 0 and shares[-1] <= 1, "progress moves with every shape"
    assert found.sparsity == next(each for each in SPARSITIES if 1 - each <= asked)
    assert found.steps == told and len(told) <= math.ceil(math.log2(len(SPARSITIES))) + 1
    assert min(step.sparsity for step in told if step.ratio <= asked) == found.sparsity


def test_timings_that_differ_by_more_than_the_gain_end_the_search_at_once() -> None:
    told: list[TimedShape] = []
    with pytest.raises(LatencyTooNoisy, match=r"differ by 35.0%, more than the gain of 30.0%") as refused:
        search(SPARSITIES, 0.7, fake(1.0, noise=0.35), lambda step, done: told.append(step))
    assert len(told) == 1
    problem = refused.value.problem()
    assert (problem["code"], problem["param"], problem["retryable"]) == (
        "latency_too_noisy", "target.latency_ratio", False,
    )  # fmt: skip


def pruned_config(folder: ModelFolder, request: ResolvedRequest) -> PretrainedConfig:
    """Return the config of a model that the request has pruned."""
    assert request.removal is not None
    run = language_run(request.removal)
    return folder.config_of(run.pruned_config(folder, make_plan(folder, request, device=CPU)))


@crossed("name, method", LANGUAGE_MODELS, ["depth", "random-structured"], UNLIKE)
def test_the_shape_that_is_timed_is_the_shape_that_is_made(name: str, method: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    opened = open_model(folder)
    request = request_for(opened, method, 0.25)
    timed = random_model(opened, pruned_config(opened, request), torch.float32, CPU)
    walk = walk_for(opened, request, device=CPU, work=tmp_path, calibration=make_tokens(), evaluations={})
    result = walk.run()
    made = inspect_folder(_written(result, folder, tmp_path / "artifact"))
    assert timed.num_parameters() == made.parameters < opened.description.parameters
    assert torch.isfinite(timed(input_ids=make_tokens(1)).logits).all()


def _written(result: PruneResult, source: Path, target: Path) -> Path:
    write_checkpoint(result.files, result.unchanged, source, target, config=result.config)
    return target


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
    monkeypatch.setattr(latency_search, "DenseLatency", FakeClock)
    folder = open_model(make_model(tmp_path / "model", "llama"))

    def run(name: str, previous: Sequence[str] = (), length: int = 16) -> LatencySearch:
        (tmp_path / name).mkdir()
        evaluation = {"sequence_length": length}
        spec = SearchSpec(
            job="job_1", attempt=1, recipe=recipe_of(method, target={"latency_ratio": 0.75}, evaluation=evaluation),
            model=ModelSource(path=folder.path, name="m", revision="1"), work=tmp_path / name,
            previous=[tmp_path / each for each in previous], artifact=tmp_path / "artifact", calibration=None,
            evaluation=[], device="cpu", threads=None, activation_budget_bytes=1,
        )  # fmt: skip
        return search_model(spec, CPU, lambda step, done: None)

    first = run("one")
    description = folder.description
    request = request_for(folder, method, first.sparsity, at_least=True)
    shape = random_model(folder, pruned_config(folder, request), torch.float32, CPU)
    assert shape.num_parameters() <= 0.75 * description.parameters
    assert shape.num_parameters() / description.parameters == pytest.approx(1 - first.sparsity)
    before = FakeClock.timed
    assert run("two", ["one"]) == first and FakeClock.timed == before
    assert run("three", ["none", "two"]) == first and FakeClock.timed == before
    run("four", ["three"], length=17)
    assert FakeClock.timed > before
    (positions(tmp_path / "four", LATENCY)[-1] / STATE).write_text("{")
    assert saved_state(tmp_path / "three", LATENCY) == first.model_dump(mode="json")
    assert run("five", ["four"]) == first
