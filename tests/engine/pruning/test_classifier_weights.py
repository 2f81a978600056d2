"""Convolutions and linear layers of classifiers as matrices, and the one-shot methods on them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core.engine.pruning.layer_matrix import input_rows, layer_of, output_rows, set_matrix, to_matrix
from secateur_wire.errors import IndivisibleWidth, UnsupportedArchitecture
from tests.engine import classifier_networks
from tests.engine.classifying import (
    Plain,
    network,
    prune,
    random_images,
    scene,
    zeros,
)
from tests.engine.sweeping import sweep, tensors_of
from tests.engine.tiny import make_model, make_tokens

CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 1)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 2, "groups": 2},
    {"kernel_size": 3, "groups": 4, "padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_convolution_is_its_matrix_times_its_patches(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, bias=False, **options)
    inputs = torch.randn(3, 4, 7, 6)
    outputs = layer(inputs)
    weight_GOI = to_matrix(layer).unflatten(0, (layer.groups, -1))
    (X_BGLI,) = input_rows("layer", layer, inputs, 3)
    torch.testing.assert_close(
        torch.einsum("bgli,goi->bglo", X_BGLI, weight_GOI), output_rows(layer, outputs, 3), rtol=1e-5, atol=1e-6
    )
    before = layer.weight.detach().clone()
    set_matrix(layer, to_matrix(layer))
    assert torch.equal(layer.weight, before)


def test_a_convolution_with_a_forward_of_its_own_is_refused_by_name() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return super().forward(maps) * 2

    model = Plain(nn.Sequential(Standardised(1, 2, 2), nn.Flatten()))
    with pytest.raises(UnsupportedArchitecture, match=r"body\.0 is a Standardised"):
        prune("wanda", scene(model, random_images(2, (1, 2, 2), classes=2), sparsity=0.5))


METHODS: dict[str, dict[str, Any]] = {
    "sparsegpt": {},
    "obs": {"mode": "layer_wise"},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_convolution_of_single_pixels_is_pruned_like_the_linear_layer_it_is(method: str) -> None:
    torch.manual_seed(0)
    convolution = Plain(nn.Sequential(nn.Conv2d(8, 6, 1), nn.Flatten(), nn.ReLU(), nn.Linear(6, 3)))
    linear = Plain(nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)))
    images = random_images(40, (8, 1, 1), classes=3)
    pairs = [("body.0", "body.1"), ("body.3", "body.3")]
    for mine, other in pairs:
        set_matrix(layer_of(linear, other), to_matrix(layer_of(convolution, mine)))
    linear.body[1].bias.data.copy_(convolution.body[0].bias)  # type: ignore[index]
    linear.body[3].bias.data.copy_(convolution.body[3].bias)  # type: ignore[index]
    for pattern in ("unstructured", "2:4"):
        for model in (convolution, linear):
            place = scene(model, images, sparsity=0.5, pattern=pattern, batch_size=16)
            place.layers = [place.layers[0]]
            prune(method, place, **METHODS[method])
        first, second = (to_matrix(layer_of(*each)) for each in ((convolution, "body.0"), (linear, "body.1")))
        assert torch.equal(first == 0, second == 0)
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


FAMILIES = ["resnet-bottleneck", "regnet-y", "vit"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_pruned_and_its_derivatives_are_taken(name: str) -> None:
    images = classifier_networks.random_images(classifier_networks.NETWORKS[name].image_shape, 4)
    place = scene(classifier_networks.make_classifier(name), images, sparsity=0.5, batch_size=4)
    prune("wanda", place)
    assert zeros(place.model) == {
        shape.name: shape.out_features * round(0.5 * shape.in_features) for shape in place.layers
    }
    assert not [note for note in place.notes if "left dense" in note]
    place = scene(classifier_networks.make_classifier(name), images, sparsity=0.7, batch_size=4)
    prune("obd", place, rounds=1, retrain_steps=0, curvature="squared_error")
    assert sum(zeros(place.model).values()) == round(0.7 * sum(shape.numel for shape in place.layers))
    (row,) = place.figures["rounds"]
    assert 0 < row["predicted_increase"] < math.inf


def test_n_m_runs_along_the_input_channels() -> None:
    model = network("vgg", hidden_sizes=[4, 8], image_size=8)
    images = random_images(16, (1, 8, 8))
    with pytest.raises(IndivisibleWidth, match=r"body\.0 has 9 input weights"):
        prune("sparsegpt", scene(model, images, sparsity=0.5, pattern="2:4"))
    place = scene(model, images, sparsity=0.5, pattern="2:4")
    place.layers = [shape for shape in place.layers if shape.in_features % 4 == 0]
    prune("sparsegpt", place)
    for shape in place.layers:
        weight = model.get_submodule(shape.name).weight
        channels_last = weight.movedim(1, -1) if weight.dim() == 4 else weight
        assert ((channels_last.unflatten(-1, (-1, 4)) == 0).sum(-1) == 2).all()


def test_a_layer_that_no_image_reaches_stays_dense_and_is_named() -> None:
    model = Plain(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    model.spare = nn.Linear(4, 3)
    place = prune("wanda", scene(model, random_images(4, (1, 2, 2), classes=3), sparsity=0.5))
    assert zeros(model) == {"body.1": 6, "spare": 0}
    assert any("spare" in note for note in place.notes)


def test_layer_wise_obs_prunes_a_language_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    request: dict[str, Any] = {
        "sparsity": 0.5, "pattern": "2:4", "calibration": make_tokens(), "parameters": {"forward_dtype": "float32"},
    }  # fmt: skip
    found = sweep(model, tmp_path / "obs", method="obs", **request)
    other = sweep(model, tmp_path / "sparsegpt", method="sparsegpt", **request)
    assert all(row.zeros == round(0.5 * row.out_features * row.in_features) for row in found.layers)
    for mine, its in zip(found.layers[:3], other.layers[:3], strict=True):
        assert mine.reconstruction_error is not None and its.reconstruction_error is not None
        assert mine.reconstruction_error < its.reconstruction_error
    weight = tensors_of(found)["model.layers.0.mlp.up_proj.weight"]
    assert ((weight.unflatten(1, (-1, 4)) == 0).sum(-1) == 2).all()
