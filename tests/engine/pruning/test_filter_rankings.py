"""Rankings of filters by what they are worth."""

import pytest
import torch
from torch import Tensor, nn

from core.engine.datasets.image_set import TensorImages
from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.filters.rankings import between_layers, kernel_sums, taylor
from core.engine.pruning.network import Network
from tests.engine.classifier_networks import make_classifier, make_scene, random_images


def _dead_filter() -> tuple[Network, CoupledChannels, int]:
    """A network whose filter 3 of the second layer gives nothing, though its kernel is the largest of all."""
    model = make_classifier("vgg")
    convolution, norm = model.get_submodule("network.body.3"), model.get_submodule("network.body.4")
    with torch.no_grad():
        convolution.weight[3] = 10.0
        norm.bias += 2.0  # no other is dead
        norm.weight[3] = norm.bias[3] = 0.0
    scene = make_scene(model, random_images((1, 8, 8)))
    groups = CoupledChannels.of(model, (1, 8, 8))
    (place,) = (at for at, each in enumerate(groups.groups) if each.name == "network.body.3")
    return scene, groups, place


def test_a_useless_filter_is_found() -> None:
    scene, groups, place = _dead_filter()
    scores = between_layers(taylor(scene, groups, scene.calibration))
    assert scores[place].argmin() == 3 and scores[place][3] == scores[place].min() < 1e-6
    assert all(bool((score_U >= 0).all()) for score_U in scores)
    assert kernel_sums(scene.model, groups.groups[place], power=2).argmax() == 3


def test_opposite_gradients_of_two_images_do_not_cancel() -> None:
    model = ReferenceNetwork(
        ReferenceConfig(network="mlp", hidden_sizes=[2], num_channels=1, image_size=1, num_labels=2)
    ).eval()
    activation = torch.tensor(1.0).tanh()
    first, head = model.get_submodule("network.body.1"), model.get_submodule("network.head")
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [0.0]]))
        first.bias.zero_()
        head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        head.bias.copy_(torch.stack([-activation, activation]))
    scene = make_scene(model, TensorImages(torch.ones(2, 1, 1, 1), torch.tensor([0, 1])))
    groups = CoupledChannels.of(model, (1, 1, 1), is_checked=True)
    gates = [torch.ones(2, requires_grad=True)]
    with groups.gated(gates):
        loss = nn.functional.cross_entropy(scene.logits(torch.ones(2, 1, 1, 1)), torch.tensor([0, 1]))
    (gradient_U,) = torch.autograd.grad(loss, gates)
    assert gradient_U.abs().max() < 1e-6, "the mean over images alone sees nothing"
    (score_U,) = taylor(scene, groups, scene.calibration)
    assert score_U[0].item() == pytest.approx(activation.item(), abs=1e-6) and score_U[1] == 0


def test_taylor_takes_the_mean_over_space_before_the_absolute_value() -> None:
    model = make_classifier("lenet-5")
    scene, shape = make_scene(model, random_images((1, 28, 28), 3)), (1, 28, 28)
    groups = CoupledChannels.of(model, shape)
    pool, products = model.get_submodule("network.body.3"), []
    for number in range(3):
        kept: list[Tensor] = []
        hook = pool.register_forward_hook(
            lambda layer, inputs, output, kept=kept: (output.retain_grad(), kept.append(output))[1]
        )
        pixels_BCHW, labels_B = scene.calibration.batch([number]), scene.calibration.labels_N[[number]]
        nn.functional.cross_entropy(scene.logits(pixels_BCHW), labels_B).backward()
        hook.remove()
        products.append((kept[0] * kept[0].grad)[0].sum(dim=(1, 2)).abs())
    expected_U = torch.stack(products).mean(dim=0) / 8**2  # of the convolution's 8 x 8 map, before it is pooled
    torch.testing.assert_close(taylor(scene, groups, scene.calibration)[1].float(), expected_U)
