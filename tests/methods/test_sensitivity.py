"""Sensitivity: every point is that of a model that lost just that; resuming, spilling, the chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from core.engine.datasets.image_set import ImageSet
from core.engine.models.classifier import ClassifierFolder, load_classifier, open_classifier
from core.engine.models.folder import open_model
from core.engine.options.axes import SensitivityOptions
from core.engine.options.sensitivity import Sensitivity, SensitivityCurve, SensitivityPoint
from core.engine.pruning.network import Network, mean_loss
from core.engine.removals.weights import LayerSelection, prunable_linears
from core.engine.resume.kinds import BLOCK
from core.engine.resume.store import ResumeStore
from core.methods.classifiers.coupled_channels import CoupledChannels
from core.methods.classifiers.filters import kernel_sums
from core.methods.classifiers.sensitivity import classifier_sensitivity
from core.methods.engine import build_classifier_method
from core.methods.registry import parse_parameters
from core.methods.sensitivity import SensitivityPass, SensitivityResult
from core.pipeline.plans import make_sensitivity_plan
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.progress import Progress, WorkStopped
from secateur_wire.errors import InvalidRequest
from tests.engine.classifier_folders import CLASSES, images, make_classifier
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


CPU = torch.device("cpu")
PARTS = [0.3, 0.8]


@pytest.fixture
def classifier(tmp_path: Path) -> ClassifierFolder:
    return open_classifier(make_classifier(tmp_path / "model", "resnet"))


def labelled(count: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    return ImageSet(images("resnet", count), torch.randint(CLASSES, (count,), generator=generator))


def measured(
    classifier: ClassifierFolder,
    work: Path,
    method: str,
    *,
    progress: Progress | None = None,
    previous: Path | None = None,
) -> tuple[SensitivityPoint, list[SensitivityCurve], nn.Module]:
    asked: dict[str, Any] = {"method": method, "rates": PARTS}
    checked = resolve_request(classifier.description, UnresolvedRequest("sensitivity", None, None, asked))
    parameters = checked.parameters
    assert isinstance(parameters, SensitivityOptions)
    work.mkdir(exist_ok=True)
    model = load_classifier(classifier, CPU)
    scene = Network(
        model, prunable_linears(classifier.description, LayerSelection()), images=labelled(12, 1),
        progress=progress or Progress(),
    )  # fmt: skip
    store = ResumeStore(work, "same", [previous] if previous else [])
    found = classifier_sensitivity(scene, labelled(20, 2), parameters, store)
    return *found, model


def test_a_point_is_the_loss_of_a_copy_that_lost_just_that(classifier: ClassifierFolder, tmp_path: Path) -> None:
    method = "wanda"
    dense, curves, model = measured(classifier, tmp_path / "work", method)
    untouched = load_classifier(classifier, CPU).state_dict()
    assert all(torch.equal(each, untouched[name]) for name, each in model.state_dict().items())
    layers = prunable_linears(classifier.description, LayerSelection())
    assert [curve.name for curve in curves] == [layer.name for layer in layers]
    assert dense.loss == pytest.approx(mean_loss(Network(model, layers), labelled(20, 2)), rel=1e-6)
    for place in (0, len(layers) - 1):
        copy = load_classifier(classifier, CPU)
        alone = Network(copy, [layers[place]], sparsity=0.8, images=labelled(12, 1))
        build_classifier_method(method, parse_parameters(method, {})).prune(alone)
        point = curves[place].points[1]
        assert point.loss == pytest.approx(mean_loss(alone, labelled(20, 2)), rel=1e-6)
        assert point.rate == 0.8 and point.sparsity == pytest.approx(0.8, abs=0.1)  # whole weights a row
        assert point.accuracy is not None and curves[place].weights == layers[place].numel


def test_a_group_of_filters_loses_those_of_lowest_score(classifier: ClassifierFolder, tmp_path: Path) -> None:
    _, curves, model = measured(classifier, tmp_path / "work", "filter-l1")
    groups = CoupledChannels.of(model, images("resnet", 1).shape[1:])
    assert [curve.name for curve in curves] == [group.name for group in groups.groups] and curves
    layers = prunable_linears(classifier.description, LayerSelection())
    for place, (curve, group) in enumerate(zip(curves, groups.groups, strict=True)):
        assert [point.sparsity for point in curve.points] == [round(rate * group.units) / group.units for rate in PARTS]
        smaller = load_classifier(classifier, CPU)
        whole = CoupledChannels.of(smaller, images("resnet", 1).shape[1:])
        if group.is_exact:
            scores = kernel_sums(whole, place)
            whole.remove({place: scores.argsort(stable=True)[: round(0.8 * group.units)].tolist()})
            loss = mean_loss(Network(smaller, layers), labelled(20, 2))
            assert curve.points[1].loss == pytest.approx(loss, rel=1e-4)


def test_stopped_after_a_layer_it_goes_on_there(classifier: ClassifierFolder, tmp_path: Path) -> None:
    _, whole, _ = measured(classifier, tmp_path / "whole", "magnitude")
    first, second = Watching(stop_after=3), Watching()
    with pytest.raises(WorkStopped):
        measured(classifier, tmp_path / "one", "magnitude", progress=first)
    assert len(first.shares) == 3
    _, again, _ = measured(classifier, tmp_path / "two", "magnitude", progress=second, previous=tmp_path / "one")
    assert again == whole and len(second.shares) == len(whole) - 3
