"""Second derivatives of a classifier's loss against automatic differentiation."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.engine.datasets.image_set import ImageSet
from core.engine.pruning.layer_matrix import layer_of, to_matrix
from core.methods.classifiers.obd import gradient_rows, mean_squares
from tests.engine.classifying import Plain, network, random_images, scene


def regression(seed: int) -> tuple[Plain, ImageSet]:
    """Softmax regression of 3 classes on images of 4 pixels: its logits are linear in its parameters."""
    torch.manual_seed(seed)
    return Plain(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))), random_images(9, (1, 2, 2), classes=3, seed=seed)


def true_hessian(model: Plain, images: ImageSet) -> Tensor:
    """Of the mean cross-entropy in weights and then biases, [15, 15]."""
    pixels = images.batch(range(len(images))).flatten(1)

    def loss(parameters: Tensor) -> Tensor:
        logits = pixels @ parameters[:12].view(3, 4).T + parameters[12:]
        return nn.functional.cross_entropy(logits, images.labels_N)

    linear = model.body[1]  # type: ignore[index]
    flat = torch.cat([linear.weight.detach().flatten(), linear.bias.detach()])
    hessian: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return hessian


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_of_a_model_linear_in_its_parameters_gauss_newton_is_the_hessian(seed: int) -> None:
    model, images = regression(seed)
    place = scene(model, images, batch_size=4)
    hessian = true_hessian(model, images)
    h = mean_squares(place, images, "gauss_newton")["body.1"]
    torch.testing.assert_close(h.flatten(), hessian.diagonal()[:12], rtol=1e-4, atol=1e-6)
    rows = torch.cat(list(gradient_rows(place, images, "gauss_newton")))
    torch.testing.assert_close(rows.T @ rows / len(images), hessian, rtol=1e-4, atol=1e-6)


NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "vgg": ({"hidden_sizes": [3, 4], "image_size": 8}, (1, 8, 8)),
    "digits-1989": ({}, (1, 28, 28)),
    "mlp": ({"hidden_sizes": [5], "image_size": 3}, (1, 3, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gauss_newton_of_convolutions_is_that_of_single_images_jacobians(name: str) -> None:
    config, shape = NETWORKS[name]
    model = network(name, classes=3, **config)
    images = random_images(3, shape, classes=3)
    place = scene(model, images, batch_size=2)
    found = mean_squares(place, images, "gauss_newton")
    expected = {layer.name: torch.zeros(layer.out_features, layer.in_features) for layer in place.layers}
    for number in range(3):
        logits = model(pixel_values=images.batch([number])).logits[0]
        p = logits.detach().softmax(0)
        H = p.diag() - p[:, None] * p
        for layer in place.layers:
            weight = layer_of(model, layer.name).weight
            jacobian = torch.stack([torch.autograd.grad(z, weight, retain_graph=True)[0].flatten() for z in logits])
            diagonal = ((H @ jacobian) * jacobian).sum(0).view_as(weight)
            expected[layer.name] += as_matrix(model, layer.name, diagonal) / 3
    for each, h in expected.items():
        torch.testing.assert_close(found[each], h, rtol=1e-3, atol=1e-7, msg=lambda text, each=each: f"{each}: {text}")


def as_matrix(model: nn.Module, name: str, like_weight: Tensor) -> Tensor:
    layer = layer_of(model, name)
    kept = layer.weight.data.clone()
    layer.weight.data.copy_(like_weight)
    matrix = to_matrix(layer).clone()
    layer.weight.data.copy_(kept)
    return matrix


def test_a_layer_used_twice_has_the_gradient_of_both_uses() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = Plain(nn.Sequential(nn.Flatten(), shared, nn.Tanh(), shared))
    images = random_images(3, (1, 2, 2), classes=4)
    place = scene(model, images)
    found = mean_squares(place, images, "empirical_fisher")["body.1"]
    squares = torch.zeros(4, 4)
    for number in range(3):
        loss = nn.functional.cross_entropy(model(images.batch([number])).logits, images.labels_N[[number]])
        squares += torch.autograd.grad(loss, shared.weight)[0].square() / 3
    torch.testing.assert_close(found, squares, rtol=1e-4, atol=1e-7)


def test_what_follows_may_write_into_a_layers_output() -> None:
    models = [
        Plain(nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(inplace=inplace), nn.Linear(6, 3)))
        for inplace in (False, True)
    ]
    models[1].load_state_dict(models[0].state_dict())
    images = random_images(4, (1, 2, 2), classes=3)
    first, second = (mean_squares(scene(each, images), images, "gauss_newton") for each in models)
    for name, h in first.items():
        torch.testing.assert_close(h, second[name])
