"""Estimates of device memory of classifiers: a trace without weights finds what their passes take on a device."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core.engine.architectures.classifier_passes import ClassifierPasses
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.pruning.classifier_trace import trace_classifier
from tests.engine.classifier_folders import CLASSES, FAMILIES, image_shape, make_classifier
from tests.engine.classifying import random_images
from tests.simulator.backend import LIKE_CUDA, simulate


def _passes(folder: Path, name: str) -> ClassifierPasses:
    return trace_classifier(open_classifier(folder), image_shape(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_passes_take_what_a_trace_without_weights_finds(name: str, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", name)
    passes = _passes(folder, name)
    images = random_images(48, image_shape(name), classes=CLASSES)
    with simulate(LIKE_CUDA) as (_, simulated):
        model = load_classifier(open_classifier(folder), simulated.device)
        assert simulated.allocated == passes.weights

        def peak(run: Any) -> int:
            gc.collect()
            simulated.peak = simulated.allocated
            run(images.batch(range(48)).to(simulated.device), images.labels_N.to(simulated.device))
            return simulated.peak - passes.weights

        @torch.no_grad()
        def evaluate(pixels_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
            model(pixel_values=pixels_BCHW)

        def train(pixels_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
            model.train()
            nn.functional.cross_entropy(model(pixel_values=pixels_BCHW).logits, labels_B).backward()

        measured = {"evaluation": peak(evaluate), "training": peak(train)}
    found = {"evaluation": passes.evaluation.of(48), "training": passes.training.of(48)}
    print(name, measured, {each: found[each] / measured[each] for each in found})
    assert found == pytest.approx(measured, rel=0.02)
