"""Sensitivity: every point equals pruning that layer alone in a model of its own; resuming, spilling, the chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from core.engine.models.folder import open_model
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.options.sensitivity_curves import Sensitivity
from core.engine.resume.kinds import BLOCK
from core.methods.sensitivity.language_pass import SensitivityPass, SensitivityResult
from core.pipeline.plans import make_sensitivity_plan
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.progress import Progress, WorkStopped
from secateur_wire.errors import InvalidRequest
from tests.engine.resuming import positions
from tests.engine.sweeping import sweep
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

FLOAT32 = {"forward_dtype": "float32"}
TEXT = make_tokens(4, seed=9)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def sensitivity(
    folder: Path,
    work: Path,
    *,
    progress: Progress | None = None,
    previous: Sequence[Path] = (),
    budget: int = 2**30,
    **parameters: Any,
) -> SensitivityResult:
    opened = open_model(folder)
    checked = resolve_request(opened.description, UnresolvedRequest("sensitivity", None, None, parameters))
    options = checked.parameters
    assert isinstance(options, SensitivityOptions)
    work.mkdir(parents=True, exist_ok=True)
    return SensitivityPass(
        opened, make_sensitivity_plan(opened, options, device=torch.device("cpu")), calibration=make_tokens(),
        evaluations={"text": TEXT}, work=work, previous=previous, progress=progress, activation_budget_bytes=budget,
    ).run()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "method"),
    [("llama", "wanda"), ("gpt2", "sparsegpt")],
)
def test_a_point_is_the_perplexity_of_a_model_that_lost_just_that(name: str, method: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    found = sensitivity(folder, tmp_path / "work", method=method, rates=[0.3, 0.6], parameters=FLOAT32)
    assert [curve.layer for curve in found.curves] == [0, 1, 2]
    for layer, rate, place in ((0, 0.6, 1), (2, 0.3, 0)):
        alone = sweep(
            folder, tmp_path / f"{layer}", calibration=make_tokens(), evaluations={"text": TEXT}, method=method,
            sparsity=rate / 3, parameters=FLOAT32
            | {"propagation": "two_pass", "allocation": [rate if each == layer else 0.0 for each in range(3)]},
        )  # fmt: skip
        point = found.curves[layer].points[place]
        assert point.rate == rate
        assert point.perplexity == pytest.approx(alone.perplexity["text"].pruned, rel=1e-6)
        assert point.ratio == pytest.approx(alone.perplexity["text"].pruned / alone.perplexity["text"].dense, rel=1e-6)
        assert point.sparsity == pytest.approx(rate, abs=0.02)
        assert found.dense.perplexity == pytest.approx(alone.perplexity["text"].dense, rel=1e-6)
        rows = [row for row in alone.layers if row.layer == layer]
        assert found.curves[layer].weights == sum(row.out_features * row.in_features for row in rows)


def test_scope_module_prunes_each_linear_layer_alone(model: Path, tmp_path: Path) -> None:
    found = sensitivity(
        model, tmp_path / "work", method="wanda", scope="module", pattern="2:4",
        parameters=FLOAT32 | {"skip_modules": ["o_proj"]},
    )  # fmt: skip
    names = [curve.name for curve in found.curves]
    assert len(names) == 3 * 6 and not any("o_proj" in name for name in names)
    chosen = "model.layers.1.self_attn.k_proj"
    alone = sweep(
        model, tmp_path / "alone", calibration=make_tokens(), evaluations={"text": TEXT}, method="wanda",
        pattern="2:4", parameters=FLOAT32 | {"skip_modules": [name for name in names if name != chosen] + ["o_proj"]},
    )  # fmt: skip
    (point,) = found.curves[names.index(chosen)].points
    assert (point.rate, point.sparsity) == (0.5, 0.5)
    assert point.perplexity == pytest.approx(alone.perplexity["text"].pruned, rel=1e-6)


def test_killed_after_a_layer_the_next_attempt_finds_the_same(model: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {"method": "sparsegpt", "rates": [0.5, 0.8]}
    whole = sensitivity(model, tmp_path / "whole", **request)

    with pytest.raises(WorkStopped):
        sensitivity(model, tmp_path / "one", progress=Watching(stop_after=1), **request)
    watching = Watching()
    again = sensitivity(
        model, tmp_path / "two", previous=[tmp_path / "one"],
        progress=watching, **request,
    )  # fmt: skip
    assert again.resumed_from == 1 and watching.done == [2, 3]
    assert (again.dense, again.curves) == (whole.dense, whole.curves)
    other = sensitivity(model, tmp_path / "three", previous=[tmp_path / "one"], **request | {"rates": [0.5]})
    assert other.resumed_from == 0 and any("starts over" in note for note in other.notes)


def test_what_does_not_fit_the_budget_is_spilled_read_again_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {"method": "wanda", "rates": [0.5, 0.8], "scope": "module"}
    roomy, none = (sensitivity(model, tmp_path / f"{budget}", budget=budget, **request) for budget in (2**30, 0))
    assert roomy.curves == none.curves
    assert not positions(tmp_path / "0" / "variants", BLOCK), "spilled streams go once they are measured"


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"method": "recover"}, "parameters.method", "magnitude"),
        ({"method": "llm-pruner"}, "parameters.method", "wanda"),
        ({"method": "nothing"}, "parameters.method", "not known"),
        ({"pattern": "3:2"}, "parameters.pattern", "0 < n < m"),
        ({"pattern": "2:4", "rates": [0.3]}, "parameters.rates", "leave rates out"),
        ({"rates": [0.5, 0.5]}, "parameters", "must be in rising order"),
        ({"rates": [1.0]}, "parameters.rates.0", "below 1"),
        ({"method": "wanda", "parameters": {"block_size": 3}}, "parameters.parameters", "wanda takes"),
        ({"parameters": {"skip_layers": [3]}}, "parameters.parameters", "does not exist"),
        ({"parameters": {"allocation": "owl"}}, "parameters.parameters.allocation", "leave allocation out"),
        ({"parameters": {"scope": "model"}}, "parameters.parameters.scope", "'tensor' or 'row'"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(model: Path, asked: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve_request(open_model(model).description, UnresolvedRequest("sensitivity", None, None, asked))
    assert caught.value.param == param and words in caught.value.message


def test_equal_figures_give_the_same_chart_and_its_words_are_text(model: Path, tmp_path: Path) -> None:
    from core.pipeline.reports.charts import sensitivity_chart  # slow to load

    result = sensitivity(model, tmp_path / "work", method="magnitude", rates=[0.3, 0.6])
    found = Sensitivity(
        task="language-model", method="magnitude", pattern="unstructured", scope="layer", rates=[0.3, 0.6],
        measured_on={"dataset": "text"}, dense=result.dense, curves=result.curves,
    )  # fmt: skip
    chart = sensitivity_chart(found)
    assert chart == sensitivity_chart(Sensitivity.model_validate_json(found.model_dump_json()))
    words = {"".join(each.itertext()).strip() for each in ElementTree.fromstring(chart).iter() if "text" in each.tag}
    assert {"layer 0", "layer 2", "30%", "60%", "weights pruned", "loss increase, nats a token"} <= words
    changed = result.curves[0].model_copy(update={"points": result.curves[1].points})
    assert chart != sensitivity_chart(found.model_copy(update={"curves": [changed, *result.curves[1:]]}))
