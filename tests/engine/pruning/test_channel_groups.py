"""Coupled channels of every family, and what removing them leaves."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, TimmWrapperConfig

from core.engine.evaluation.flops import count_flops
from core.engine.models.reshaping import changed_groups, reshape_modules
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from secateur_wire.errors import UnsupportedArchitecture
from tests.engine.classifier_networks import NETWORKS, logits, make_classifier, random_images


@pytest.mark.parametrize("name", ["resnet-basic", "mobilenet-v2", "regnet-x", "vit", "lenet-5"])
def test_removed_channels_leave_what_was_said_and_the_rest_is_rebuilt(name: str) -> None:
    network, model = NETWORKS[name], make_classifier(name)
    images = random_images(network.image_shape, 4)
    groups = CoupledChannels.of(model, network.image_shape)
    assert groups.groups and groups.flops == count_flops(model, network.image_shape)
    outputs = {member.name for group in groups.groups for member in group.writers}
    assert not any(model.get_submodule(each).weight.shape[0] == 5 for each in outputs), "the classes stay"
    before = model.num_parameters()
    chosen = {place: range(0, group.units - 1, 2) for place, group in enumerate(groups.groups)}
    exact = {place: units for place, units in chosen.items() if groups.groups[place].is_exact}
    with groups.silenced(exact):
        silenced = logits(model, images)
    counts = [len(chosen[place]) if place in exact else 0 for place in range(len(groups.groups))]
    left, flops = groups.parameters_after(counts), groups.flops_after(counts)
    groups.remove(exact)
    torch.testing.assert_close(logits(model, images), silenced, rtol=1e-3, atol=1e-4)
    assert model.num_parameters() == left < before
    assert count_flops(model, network.image_shape) == flops < groups.flops
    inexact = CoupledChannels.of(model, network.image_shape)
    inexact.remove(
        {place: [0] for place, group in enumerate(inexact.groups) if not group.is_exact}
    )  # fmt: skip

    original = AutoModelForImageClassification.from_config(network.configuration())
    rebuilt = AutoModelForImageClassification.from_config(network.configuration()).eval()
    state = model.state_dict()
    reshape_modules(rebuilt, state, changed_groups(model, original))
    rebuilt.load_state_dict(state)
    assert torch.equal(logits(rebuilt, images), logits(model, images))
    for module in rebuilt.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


def test_heads_go_whole_and_grouped_convolutions_stay_even() -> None:
    of_heads, grouped = (
        CoupledChannels.of(make_classifier(name), NETWORKS[name].image_shape).groups for name in ("vit", "regnet-x")
    )
    assert sorted((group.kind, group.units) for group in of_heads) == [("channels", 20)] * 2 + [("heads", 4)] * 2
    assert {len(group.leaders[0].channels_UK[0]) for group in grouped} >= {1, 2, 3}, "one of each group together"


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


def test_heads_of_another_layout_are_refused_by_name() -> None:
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", num_labels=5, model_args={"depth": 1})
    with pytest.raises(UnsupportedArchitecture, match=r"blocks\.0\.attn \(Attention\)"):
        CoupledChannels.of(AutoModelForImageClassification.from_config(config).eval(), (3, 224, 224))


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


def test_operations_are_those_of_the_arithmetic() -> None:
    expected = 2 * (20 * 25 * 24**2 + 50 * 20 * 25 * 8**2 + 800 * 500 + 500 * 5)
    assert count_flops(make_classifier("lenet-5"), (1, 28, 28)) == expected
