"""Sensitivity of a classifier: every point is that of a copy that lost just that; taken up again after a stop."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from core.engine.datasets.image_set import TensorImages
from core.engine.models.classifier import ClassifierFolder, load_classifier, open_classifier
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.options.sensitivity_curves import Sensitivity, SensitivityCurve, SensitivityPoint
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network, mean_loss
from core.engine.removals.weights.options import LayerSelection, prunable_linears
from core.engine.resume.store import ResumeStore
from core.methods.engine import build_classifier_method
from core.methods.filter_l1.info import FilterL1Parameters
from core.methods.filter_l1.method import FilterL1
from core.methods.registry import parse_parameters
from core.methods.sensitivity.classifier_pass import classifier_sensitivity
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.progress import Progress, WorkStopped
from tests.engine.classifier_folders import CLASSES, images, make_classifier
from tests.engine.watching import Watching

DEVICE = torch.device("cpu")
RATES = [0.3, 0.8]


@pytest.fixture
def folder(tmp_path: Path) -> ClassifierFolder:
    return open_classifier(make_classifier(tmp_path / "model", "resnet"))


def labelled(count: int, seed: int) -> TensorImages:
    generator = torch.Generator().manual_seed(seed)
    return TensorImages(images("resnet", count), torch.randint(CLASSES, (count,), generator=generator))


def measured(
    folder: ClassifierFolder,
    work: Path,
    method: str,
    *,
    progress: Progress | None = None,
    previous: Path | None = None,
) -> tuple[SensitivityPoint, list[SensitivityCurve], nn.Module]:
    asked: dict[str, Any] = {"method": method, "rates": RATES}
    checked = resolve_request(folder.description, UnresolvedRequest("sensitivity", None, None, asked))
    parameters = checked.parameters
    assert isinstance(parameters, SensitivityOptions)
    work.mkdir(exist_ok=True)
    model = load_classifier(folder, DEVICE)
    scene = Network(
        model, prunable_linears(folder.description, LayerSelection()), images=labelled(12, 1),
        progress=progress or Progress(),
    )  # fmt: skip
    store = ResumeStore(work, "same", [previous] if previous else [])
    found = classifier_sensitivity(scene, labelled(20, 2), parameters, store)
    return *found, model


def test_a_point_is_the_loss_of_a_copy_that_lost_just_that(folder: ClassifierFolder, tmp_path: Path) -> None:
    from core.pipeline.reports.charts import sensitivity_chart  # slow to load

    method = "wanda"
    dense, curves, model = measured(folder, tmp_path / "work", method)
    untouched = load_classifier(folder, DEVICE).state_dict()
    assert all(torch.equal(each, untouched[name]) for name, each in model.state_dict().items())
    layers = prunable_linears(folder.description, LayerSelection())
    assert [curve.name for curve in curves] == [layer.name for layer in layers]
    assert dense.loss == pytest.approx(mean_loss(Network(model, layers), labelled(20, 2)), rel=1e-6)
    for place in (0, len(layers) - 1):
        copy = load_classifier(folder, DEVICE)
        alone = Network(copy, [layers[place]], sparsity=0.8, images=labelled(12, 1))
        build_classifier_method(method, parse_parameters(method, {})).prune(alone)
        point = curves[place].points[1]
        assert point.loss == pytest.approx(mean_loss(alone, labelled(20, 2)), rel=1e-6)
        assert point.rate == 0.8 and point.sparsity == pytest.approx(0.8, abs=0.1)  # whole weights a row
        assert point.accuracy is not None and curves[place].weights == layers[place].numel
    found = Sensitivity(
        task="image-classification", method=method, pattern="unstructured", scope="layer", rates=RATES,
        measured_on={"dataset": "images"}, dense=dense, curves=curves,
    )  # fmt: skip
    words = {"".join(each.itertext()) for each in ElementTree.fromstring(sensitivity_chart(found)).iter()}
    assert "loss increase, nats an image" in words


def test_a_group_of_filters_loses_those_of_lowest_score_as_if_removed(folder: ClassifierFolder, tmp_path: Path) -> None:
    _, curves, model = measured(folder, tmp_path / "work", "filter-l1")
    groups = CoupledChannels.of(model, images("resnet", 1).shape[1:])
    assert [curve.name for curve in curves] == [group.name for group in groups.groups] and curves
    layers = prunable_linears(folder.description, LayerSelection())
    for place, (curve, group) in enumerate(zip(curves, groups.groups, strict=True)):
        assert [point.sparsity for point in curve.points] == [round(rate * group.units) / group.units for rate in RATES]
        smaller = load_classifier(folder, DEVICE)
        whole = CoupledChannels.of(smaller, images("resnet", 1).shape[1:])
        if group.is_exact:
            scores = FilterL1(FilterL1Parameters()).score(Network(smaller, layers), whole, place, 0)
            whole.remove({place: scores.argsort(stable=True)[: round(0.8 * group.units)].tolist()})
            loss = mean_loss(Network(smaller, layers), labelled(20, 2))
            assert curve.points[1].loss == pytest.approx(loss, rel=1e-4)


def test_stopped_after_a_layer_it_goes_on_there(folder: ClassifierFolder, tmp_path: Path) -> None:
    _, whole, _ = measured(folder, tmp_path / "whole", "magnitude")
    first, second = Watching(stop_after=3), Watching()
    with pytest.raises(WorkStopped):
        measured(folder, tmp_path / "one", "magnitude", progress=first)
    assert len(first.shares) == 3
    _, again, _ = measured(folder, tmp_path / "two", "magnitude", progress=second, previous=tmp_path / "one")
    assert again == whole and len(second.shares) == len(whole) - 3
