"""Estimates of device memory of jobs on classifiers: a trace without weights finds what their passes take."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.engine.architectures.classifier_passes import ClassifierPasses, PassBytes
from core.engine.evaluation.accuracy import measure_accuracy
from core.engine.evaluation.classifier_memory import checking_bytes, timing_bytes
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.options.patterns import parse_pattern
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.pruning.classifier_trace import trace_classifier
from core.engine.pruning.iterative.retraining import retrain
from core.engine.pruning.network import Network, weights_of
from core.engine.recovery.request import Recovery
from core.engine.removals.weights.options import prunable_linears, selection_of
from core.engine.resume.store import ResumeStore
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method
from core.methods.sensitivity.classifier_pass import classifier_sensitivity
from core.service.jobs.estimates.classifier import traced_bytes
from tests.engine.classifier_folders import CLASSES, image_shape, make_classifier
from tests.engine.classifying import random_images
from tests.families import CLASSIFIERS, IN_FOURS, every_way, small_parameters
from tests.recipes import recipe_of
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.devices import SimulatedDevice

_MOST = 1.15
"""Largest estimate, to the peak."""
_MOST_AFTER_FILTERS_WENT = 1.35
"""Largest one where what is trained has lost filters in one cut: which maps are smaller then is not known before."""
_CALIBRATION, _EVALUATION = 160, 140
_QUICK = {
    "rounds": 2, "retrain_steps": 2, "curvature_images": 160, "scan_images": 160, "scan_rates": [0.5],
    "filters_per_round": 1000,
}  # fmt: skip
_SLOW = ("timm-vgg", "obd"), ("timm-vgg", "obs")
"""Ten million weights, of which every image has gradients: minutes."""
_OF_MANY_GROUPS = ("mobilenet-v2", "timm-resnet", "timm-vgg")


def _traced(folder: Path, name: str) -> ClassifierPasses:
    return trace_classifier(open_classifier(folder), image_shape(name))


def _check_passes(name: str, place: Path) -> None:
    folder = make_classifier(place / "model", name)
    passes = _traced(folder, name)
    images = random_images(48, image_shape(name), classes=CLASSES)
    with simulate(LIKE_CUDA) as (_, simulated):
        model = load_classifier(open_classifier(folder), simulated.device)
        assert simulated.allocated == passes.weights

        def peak(run: Callable[[Tensor, Tensor], object]) -> int:
            gc.collect()
            simulated.peak = simulated.allocated
            run(images.batch(range(48)).to(simulated.device), images.labels_N.to(simulated.device))
            return simulated.peak - passes.weights

        @torch.no_grad()
        def evaluate(pixels_BCHW: Tensor, labels_B: Tensor) -> None:
            model(pixel_values=pixels_BCHW)

        def train(pixels_BCHW: Tensor, labels_B: Tensor) -> None:
            model.train()
            nn.functional.cross_entropy(model(pixel_values=pixels_BCHW).logits, labels_B).backward()

        measured = {"evaluation": peak(evaluate), "training": peak(train)}
    found = {"evaluation": passes.evaluation.of(48), "training": passes.training.of(48)}
    assert found == pytest.approx(measured, rel=0.005)


@pytest.mark.parametrize("name", ["resnet", "vit", "lenet-5", "regnet"])
def test_passes_take_what_a_trace_without_weights_finds(name: str, tmp_path: Path) -> None:
    _check_passes(name, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_passes_of_every_family_take_what_a_trace_finds(name: str, tmp_path: Path) -> None:
    _check_passes(name, tmp_path)


def test_of_the_moments_of_a_pass_those_are_kept_that_may_be_the_most() -> None:
    every = [(5, 1), (100, 0), (0, 9), (90, 1), (60, 3), (10, 3), (100, 0)]
    passes = PassBytes.of_moments(every)
    for images in (0, 1, 3, 9, 10, 11, 50, 1000):
        assert passes.of(images) == max(fixed + of_image * images for fixed, of_image in every)
    assert passes.moments == [(100, 0), (90, 1), (0, 9)]


def _estimate(folder: Path, name: str, method: str, **body: Any) -> int:
    passes = _traced(folder, name)
    description = open_classifier(folder).description.model_copy(update={"passes": passes})
    recipe = recipe_of(method=method, **body)
    return traced_bytes(description, passes, recipe, calibration=_CALIBRATION, evaluation=_EVALUATION)


def _pruning_peak(
    folder: Path, name: str, simulated: SimulatedDevice, method: str, pattern: str, sparsity: float, chosen: Any
) -> int:
    """Return the peak of what a job does with the loaded model: measure, prune, measure."""
    opened = open_classifier(folder)
    calibration = random_images(_CALIBRATION, image_shape(name), classes=CLASSES)
    evaluation = random_images(_EVALUATION, image_shape(name), classes=CLASSES, seed=3)
    model = load_classifier(opened, simulated.device)
    measure_accuracy(model, evaluation)
    network = Network(
        model, prunable_linears(opened.description, selection_of(chosen)), sparsity=sparsity, images=calibration,
        device=simulated.device, pattern=parse_pattern(pattern),
    )  # fmt: skip
    build_classifier_method(method, chosen).prune(network)
    measure_accuracy(model, evaluation)
    return simulated.peak


def _check(
    place: Path, name: str, method: str, pattern: str | None = None, *, sparsity: float = 0.3, most: float = _MOST,
    **given: Any,
) -> None:  # fmt: skip
    folder = make_classifier(place / "model", name)
    pattern = pattern or get_method(method).patterns[0]
    parameters = small_parameters(method, pattern, given, _QUICK)
    chosen = get_method(method).variant(pattern).parameters(**parameters)
    with simulate(LIKE_CUDA) as (_, simulated):
        peak = _pruning_peak(folder, name, simulated, method, pattern, sparsity, chosen)
    sparsity = 0.5 if pattern == "2:4" else sparsity
    estimate = _estimate(folder, name, method, pattern=pattern, sparsity=sparsity, parameters=parameters)
    _require_close(estimate, peak, most)


def _require_close(estimate: int, peak: int, most: float = _MOST) -> None:
    assert peak <= estimate <= most * peak, f"{estimate:,} of {peak:,} bytes, {estimate / peak:.3f}"


@pytest.mark.parametrize(
    ("name", "method", "given"),
    [
        ("digits-1989", "wanda", {}),
        ("mlp", "sparsegpt", {"propagation": "two_pass"}),
        ("vit", "obd", {"rounds": 1}),
        ("lenet-300-100", "filter-taylor", {"filters_per_round": 20}),
    ],
    ids=lambda value: str(value),
)
def test_a_job_on_a_classifier_takes_what_it_was_estimated_to(
    name: str, method: str, given: dict[str, Any], tmp_path: Path
) -> None:
    _check(tmp_path, name, method, **given)


_MORE: dict[str, list[dict[str, Any]]] = {
    "wanda": [{}, {"propagation": "two_pass"}, {"variant": True}],
    "sparsegpt": [{}, {"propagation": "two_pass"}],
    "obs": [{}, {"mode": "layer_wise"}],
    "obd": [{}, {"curvature": "empirical_fisher"}, {"retrain_steps": 0}],
    "iterative-magnitude": [{}, {"rewind_step": 2}, {"retrain_steps": 0}],
    "filter-l1": [{"retrain_steps": 0}, {"rates": "sensitivity", "retrain_steps": 0}, {"rounds": 1}],
    "filter-taylor": [
        {},
        {"retrain_steps": 0},
    ],
}
"""Parameters that take memory of their own."""


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("method", "pattern", "given"),
    [
        (method, pattern, given)
        for method, pattern in every_way("image-classification")
        for given in _MORE.get(method, [{}])
        if not (pattern == "2:4" and given.keys() & {"mode", "variant"})
    ],
    ids=lambda value: str(value),
)
def test_every_method_takes_what_it_was_estimated_to(
    method: str, pattern: str, given: dict[str, Any], name: str, tmp_path: Path
) -> None:
    if (name, method) in _SLOW:
        pytest.skip("its gradients of single images take minutes")
    if given.get("rates") == "sensitivity" and name in _OF_MANY_GROUPS:
        pytest.skip("a scan of many groups of wide maps takes minutes")
    if pattern == "2:4" and name not in IN_FOURS:
        pytest.skip("two of four inputs: its layers read other numbers")
    trains_less = pattern == "structured" and small_parameters(method, pattern, given, _QUICK)["retrain_steps"] > 0
    _check(tmp_path, name, method, pattern, most=_MOST_AFTER_FILTERS_WENT if trains_less else _MOST, **given)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("lenet-300-100", "sparsegpt"),
        *(
            pytest.param(name, method, marks=pytest.mark.nightly)
            for name in ("lenet-300-100", "lenet-5", "resnet", "vit")
            for method in ("magnitude", "wanda", "filter-l1", "filter-taylor")
        ),
    ],
)
def test_sensitivity_takes_what_it_was_estimated_to(name: str, method: str, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", name)
    opened = open_classifier(folder)
    inner = {"measured_images": _CALIBRATION} if method.startswith("filter") else {}
    given = {"method": method, "pattern": get_method(method).patterns[0], "rates": [0.3, 0.6], "parameters": inner}
    recipe = recipe_of(method="sensitivity", parameters=given)
    assert isinstance(recipe.parameters, SensitivityOptions)
    with simulate(LIKE_CUDA) as (_, simulated):
        network = Network(
            load_classifier(opened, simulated.device), opened.description.linears, device=simulated.device,
            images=random_images(_CALIBRATION, image_shape(name), classes=CLASSES),
        )  # fmt: skip
        evaluation = random_images(_EVALUATION, image_shape(name), classes=CLASSES, seed=3)
        classifier_sensitivity(network, evaluation, recipe.parameters, ResumeStore(tmp_path, "fingerprint"))
        peak = simulated.peak
    _require_close(_estimate(folder, name, "sensitivity", parameters=given), peak)


@pytest.mark.parametrize(
    ("name", "recovery"),
    [
        ("lenet-300-100", "distill"),
        *(
            pytest.param(name, method, marks=pytest.mark.nightly)
            for name in CLASSIFIERS
            for method in ("finetune", "distill")
        ),
    ],
)
def test_recovery_takes_what_it_was_estimated_to(name: str, recovery: str, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", name)
    asked = Recovery(method=recovery, steps=3, batch_size=64, temperature=2.0 if recovery == "distill" else None)
    opened = open_classifier(folder)
    images = random_images(_CALIBRATION, image_shape(name), classes=CLASSES)
    with simulate(LIKE_CUDA) as (_, simulated):
        model = load_classifier(opened, simulated.device)
        teacher = load_classifier(opened, simulated.device) if recovery == "distill" else None
        weights = weights_of(model, opened.description.linears)
        with torch.no_grad():
            for weight in weights.values():
                weight.view(-1)[0] = 0
        zeros = [weight == 0 for weight in weights.values()]
        retrain(model, images, asked, weights, teacher=teacher)
        measure_accuracy(model, random_images(_EVALUATION, image_shape(name), classes=CLASSES))
        peak = simulated.peak
        del zeros
    body = {"method": recovery, "steps": 3, "batch_size": 64}
    _require_close(_estimate(folder, name, "recover", recovery=body), peak)


def test_a_check_and_a_timing_take_what_they_were_estimated_to(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", "lenet-5")
    passes, opened = _traced(folder, "lenet-5"), open_classifier(folder)
    images = torch.randn(32, *image_shape("lenet-5"))
    peaks = []
    for copies in (1, 2):
        with simulate(LIKE_CUDA) as (_, simulated), torch.inference_mode():
            models = [load_classifier(opened, simulated.device) for _ in range(copies)]
            for model in models:
                model(pixel_values=images.to(simulated.device))
            peaks.append(simulated.peak)
            del models, model
    checked, timed = peaks
    assert checking_bytes(passes) == pytest.approx(checked, rel=0.01)
    assert timed <= timing_bytes(passes, passes.weights) <= _MOST * timed
