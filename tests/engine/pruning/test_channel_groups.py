"""Coupled channels of every family, what removing them leaves, and rankings of filters by what they are worth."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from core.engine.datasets.image_set import ImageSet
from core.engine.evaluation.flops import count_flops
from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.engine.models.reshaping import changed_groups, reshape_modules
from core.methods.classifiers.coupled_channels import CoupledChannels
from core.methods.classifiers.filters import between_layers, kernel_sums, taylor
from secateur_wire.errors import UnsupportedArchitecture
from tests.engine.classifier_networks import NETWORKS, logits, make_classifier, make_scene, random_images


@pytest.mark.parametrize("name", ["resnet-basic", "mobilenet-v2", "regnet-x", "vit", "lenet-5"])
def test_removed_channels_leave_what_was_said_and_the_rest_is_rebuilt(name: str) -> None:
    network, model = NETWORKS[name], make_classifier(name)
    images = random_images(network.image_shape, 4)
    groups = CoupledChannels.of(model, network.image_shape)
    assert groups.groups and groups.flops == count_flops(model, network.image_shape)
    outputs = {name for group in groups.groups for name in group.writers}
    assert not any(model.get_submodule(each).weight.shape[0] == 5 for each in outputs), "the classes stay"
    before = model.num_parameters()
    chosen = {place: range(0, group.units - 1, 2) for place, group in enumerate(groups.groups)}
    exact = {place: units for place, units in chosen.items() if groups.groups[place].is_exact}
    with groups.silenced(exact):
        silenced = logits(model, images)
    counts = [len(chosen[place]) if place in exact else 0 for place in range(len(groups.groups))]
    left, flops = groups.after(counts)
    groups.remove(exact)
    torch.testing.assert_close(logits(model, images), silenced, rtol=1e-3, atol=1e-4)
    assert model.num_parameters() == left < before
    assert count_flops(model, network.image_shape) == flops < groups.flops
    for kind in ("heads", "channels"):  # of one kind alone
        again = CoupledChannels.of(model, network.image_shape)
        again.remove({place: [0] for place, each in enumerate(again.groups) if not each.is_exact or each.kind == kind})

    original = AutoModelForImageClassification.from_config(network.configuration())
    rebuilt = AutoModelForImageClassification.from_config(network.configuration()).eval()
    state = model.state_dict()
    reshape_modules(rebuilt, state, changed_groups(model, original))
    rebuilt.load_state_dict(state)
    assert torch.equal(logits(rebuilt, images), logits(model, images))
    for module in rebuilt.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


class _Mixing(nn.Module):
    """Two convolutions, and something between them that is no business of either."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.second = nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        maps = self.second(self.between(self.first(pixel_values)))
        return SimpleNamespace(logits=self.head(maps.mean((2, 3))))


class _Cumulative(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.cumsum(dim=1)


@pytest.mark.parametrize(("between", "named"), [
    (nn.ChannelShuffle(2), "first"), (nn.GroupNorm(2, 8), "between (GroupNorm)"), (_Cumulative(), "Cumsum"),
])  # fmt: skip
def test_what_cannot_be_coupled_is_refused_by_name(between: nn.Module, named: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedArchitecture) as refused:
        CoupledChannels.of(_Mixing(between).eval(), (3, 8, 8))
    assert named in refused.value.message


class _Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 6, 3)
        self.norm, self.after, self.head = nn.BatchNorm2d(10), nn.Conv2d(10, 8, 1), nn.Linear(8, 5)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        maps = torch.cat([self.left(pixel_values), self.right(pixel_values)], dim=1)
        return SimpleNamespace(logits=self.head(self.after(self.norm(maps).relu()).mean((2, 3))))


def test_concatenated_channels_stay_with_their_batch_norm() -> None:
    torch.manual_seed(0)
    model, images = _Concatenated().eval(), random_images((3, 8, 8), 4)
    groups = CoupledChannels.of(model, (3, 8, 8))
    assert [group.units for group in groups.groups] == [4, 6, 8]
    chosen = {0: [1], 1: [0, 5], 2: [3]}
    with groups.silenced(chosen):
        silenced = logits(model, images)
    groups.remove(chosen)
    assert model.norm.num_features == model.after.in_channels == 7
    torch.testing.assert_close(logits(model, images), silenced)


def test_a_useless_filter_is_found() -> None:
    """Filter 3 of the second layer gives nothing, though its kernel is the largest of all."""
    model = make_classifier("vgg")
    convolution, norm = model.get_submodule("network.body.3"), model.get_submodule("network.body.4")
    with torch.no_grad():
        convolution.weight[3] = 10.0
        norm.bias += 2.0  # no other is dead
        norm.weight[3] = norm.bias[3] = 0.0
    scene, groups = make_scene(model, random_images((1, 8, 8))), CoupledChannels.of(model, (1, 8, 8))
    (place,) = (at for at, each in enumerate(groups.groups) if each.name == "network.body.3")
    scores = between_layers(taylor(scene, groups, scene.calibration))
    assert scores[place].argmin() == 3 and scores[place][3] == scores[place].min() < 1e-6
    assert all(bool((score_U >= 0).all()) for score_U in scores)
    assert kernel_sums(groups, place).argmax() == 3


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
    scene = make_scene(model, ImageSet(torch.ones(2, 1, 1, 1), torch.tensor([0, 1])))
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
