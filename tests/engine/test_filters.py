"""Coupled channels of every family, and the methods that remove them."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.stats
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, TimmWrapperConfig

from core.catalogue.classifier_methods import CLASSIFIER_METHODS
from core.catalogue.recovery import Recovery
from core.data.images import TensorImages
from core.errors import InvalidParameters, InvalidSparsity, UnsupportedArchitecture
from core.evaluation.flops import count_flops
from core.models.reference import ReferenceConfig, ReferenceNetwork
from core.models.resized import changed_groups, resize_modules
from core.pruning.classifier.channels import Groups
from core.pruning.classifier.rankings import RANKINGS, compare, rank, spearman, taylor
from core.pruning.classifier.retraining import retrain
from core.pruning.classifier.rounds import Rounds
from core.pruning.classifier.scene import Observer, Scene, mean_loss
from core.pruning.methods.classifiers import build_classifier_method
from core.pruning.recovery.training import RecoveryStopped
from tests.engine.classifier_networks import NETWORKS, layers_of, logits, make_classifier, make_scene, random_images


def prune(scene: Scene, method: str, **parameters: object) -> None:
    (info,) = (each for each in CLASSIFIER_METHODS if each.id == method)
    build_classifier_method(method, info.parameters(**parameters)).prune(scene)


def parameters_of(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_channels_leave_what_was_said_and_the_rest_is_rebuilt(name: str) -> None:
    network, model = NETWORKS[name], make_classifier(name)
    images = random_images(network.image_shape, 4)
    groups = Groups.of(model, network.image_shape)
    assert groups.groups and groups.flops == count_flops(model, network.image_shape)
    outputs = {member.name for group in groups.groups for member in group.writers}
    assert not any(model.get_submodule(each).weight.shape[0] == 5 for each in outputs), "the classes stay"
    before = parameters_of(model)
    chosen = {place: range(0, group.units - 1, 2) for place, group in enumerate(groups.groups)}
    exact = {place: units for place, units in chosen.items() if groups.groups[place].is_exact}
    with groups.silenced(exact):
        silenced = logits(model, images)
    counts = [len(chosen[place]) if place in exact else 0 for place in range(len(groups.groups))]
    left, flops = groups.parameters_left(counts), groups.flops_left(counts)
    groups.remove(exact)
    torch.testing.assert_close(logits(model, images), silenced, rtol=1e-3, atol=1e-4)
    assert parameters_of(model) == left < before
    assert count_flops(model, network.image_shape) == flops < groups.flops
    inexact = Groups.of(model, network.image_shape)
    inexact.remove(
        {place: [0] for place, group in enumerate(inexact.groups) if not group.is_exact}
    )  # fmt: skip

    original = AutoModelForImageClassification.from_config(network.configuration())
    rebuilt = AutoModelForImageClassification.from_config(network.configuration()).eval()
    state = model.state_dict()
    resize_modules(rebuilt, state, changed_groups(model, original))
    rebuilt.load_state_dict(state)
    assert torch.equal(logits(rebuilt, images), logits(model, images))
    for module in rebuilt.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


@pytest.mark.parametrize(("name", "kinds"), [
    ("vit", {"heads": [4, 4], "channels": [20, 20]}), ("deit", {"heads": [4, 4], "channels": [20, 20]}),
    ("digits-1989", {"filters": [2, 6]}), ("regnet-x", {"filters": [8] * 11}),
])  # fmt: skip
def test_heads_go_whole_and_grouped_convolutions_stay_even(name: str, kinds: dict[str, list[int]]) -> None:
    groups = Groups.of(make_classifier(name), NETWORKS[name].image_shape).groups
    found: dict[str, list[int]] = {}
    for group in groups:
        found.setdefault(group.kind, []).append(group.units)
    if name == "regnet-x":
        assert {len(group.leaders[0].channels_UK[0]) for group in groups} >= {1, 2, 3}, "one of each group together"
        return
    assert found == kinds


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
        Groups.of(_Mixing(between).eval(), (3, 8, 8))
    assert named in refused.value.message


def test_heads_of_another_layout_are_refused_by_name() -> None:
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", num_labels=5, model_args={"depth": 1})
    with pytest.raises(UnsupportedArchitecture, match=r"blocks\.0\.attn \(Attention\)"):
        Groups.of(AutoModelForImageClassification.from_config(config).eval(), (3, 224, 224))


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
    groups = Groups.of(model, (3, 8, 8))
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


def _dead_filter() -> tuple[Scene, Groups, int]:
    """A network whose filter 3 of the second layer gives nothing, though its kernel is the largest of all."""
    model = make_classifier("vgg")
    convolution, norm = model.get_submodule("network.body.3"), model.get_submodule("network.body.4")
    with torch.no_grad():
        convolution.weight[3] = 10.0
        norm.bias += 2.0  # no other is dead
        norm.weight[3] = norm.bias[3] = 0.0
    scene = make_scene(model, random_images((1, 8, 8)))
    groups = Groups.of(model, (1, 8, 8))
    (place,) = (at for at, each in enumerate(groups.groups) if each.name == "network.body.3")
    return scene, groups, place


@pytest.mark.parametrize("ranking", ["taylor", "obd", "activation", "oracle"])
def test_a_useless_filter_is_found_by_every_ranking_that_looks_at_data(ranking: str) -> None:
    scene, groups, place = _dead_filter()
    scores = rank(ranking, scene, groups, scene.calibration, 0)
    assert scores[place].argmin() == 3 and scores[place][3] == scores[place].min() < 1e-6
    assert all(bool((score_U >= 0).all()) for score_U in scores)
    assert rank("minimum_weight", scene, groups, scene.calibration, 0)[place].argmax() == 3


def test_all_rankings_are_compared_with_the_oracle() -> None:
    scene, groups, _ = _dead_filter()
    scores = {name: rank(name, scene, groups, scene.calibration, 0) for name in RANKINGS}
    compared = compare(scores)
    assert set(compared) == set(RANKINGS) - {"oracle"}
    assert compared["taylor"]["all"] > compared["minimum_weight"]["all"]
    assert all(-1 <= value <= 1 for each in compared.values() for value in each.values())


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
    groups = Groups.of(model, (1, 1, 1), is_checked=True)
    gates = [torch.ones(2, requires_grad=True)]
    with groups.gated(gates):
        loss = nn.functional.cross_entropy(scene.logits(torch.ones(2, 1, 1, 1)), torch.tensor([0, 1]))
    (gradient_U,) = torch.autograd.grad(loss, gates)
    assert gradient_U.abs().max() < 1e-6, "the mean over images alone sees nothing"
    (score_U,) = taylor(scene, groups, scene.calibration, 0)
    assert score_U[0].item() == pytest.approx(activation.item(), abs=1e-6) and score_U[1] == 0


def test_taylor_takes_the_mean_over_space_before_the_absolute_value() -> None:
    model = make_classifier("lenet-5")
    scene, shape = make_scene(model, random_images((1, 28, 28), 3)), (1, 28, 28)
    groups = Groups.of(model, shape)
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
    torch.testing.assert_close(taylor(scene, groups, scene.calibration, 0)[1].float(), expected_U)


def test_rank_correlation_with_ties_is_scipys() -> None:
    first, second = torch.tensor([1.0, 2.0, 2.0, 3.0, 5.0, 5.0]), torch.tensor([2.0, 1.0, 3.0, 3.0, 4.0, 9.0])
    assert spearman(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic)
    assert spearman(first, torch.ones(6)) == 0


@pytest.mark.parametrize(("method", "parameters"), [
    ("filter-l1", {}), ("filter-l1", {"selection": "greedy", "rounds": 3}), ("filter-l1", {"rates": "sensitivity"}),
    ("filter-l1", {"order": "random"}), ("filter-l1", {"round_to": 2}),
    ("filter-taylor", {"retrain_steps": 0}), ("filter-taylor", {"retrain_steps": 1, "ranking": "obd"}),
    ("filter-taylor", {"retrain_steps": 0, "flops_weight": 0.1, "filters_per_round": 3}),
])  # fmt: skip
def test_the_sparsity_is_reached_by_less_than_one_channel(method: str, parameters: dict[str, object]) -> None:
    model = make_classifier("vgg")
    scene, before = make_scene(model, random_images((1, 8, 8)), 0.4), parameters_of(model)
    prune(scene, method, **parameters)
    removed = 1 - parameters_of(model) / before
    dearest = 10 * 9 + 10 * 9 + 2  # a filter of the third layer: kernels in and out, and batch-norm
    assert 0.4 <= removed <= 0.4 + int(parameters.get("round_to", 1)) * dearest / before  # type: ignore[call-overload]
    record = scene.figures["filters"]
    assert record["parameters"] == {"before": before, "after": parameters_of(model)}
    assert record["flops"]["after"] == count_flops(model, (1, 8, 8)) < record["flops"]["before"]
    kept = {each["name"]: each["after"] for each in record["groups"]}
    assert all(model.get_submodule(name).out_channels == count for name, count in kept.items())
    assert all(count % int(parameters.get("round_to", 1)) == 0 for count in kept.values())  # type: ignore[call-overload]
    logits(model, random_images((1, 8, 8)))


def test_operations_can_be_the_goal() -> None:
    model = make_classifier("vgg")
    scene = make_scene(model, random_images((1, 8, 8)))
    prune(scene, "filter-taylor", retrain_steps=0, flops_reduction=0.5)
    flops = scene.figures["filters"]["flops"]
    assert 0.5 <= 1 - flops["after"] / flops["before"] < 0.7


def test_a_whole_layer_is_never_removed() -> None:
    for method in ("filter-l1", "filter-taylor"):
        scene = make_scene(make_classifier("vgg"), random_images((1, 8, 8)), 0.995)
        with pytest.raises(InvalidSparsity, match=r"all that is left of network\.body\.\d.*at most 0\.9"):
            prune(scene, method)
    scene = make_scene(make_classifier("vgg"), random_images((1, 8, 8)), 0.3)
    with pytest.raises(InvalidSparsity, match=r"network\.body\.0: at most 0\.\d+ of"):
        prune(scene, "filter-l1", rates=[0.9, 0.1, 0.1, 0.1])
    with pytest.raises(InvalidParameters, match=r"4 groups of filters.*network\.body\.0, network\.body\.3"):
        prune(scene, "filter-l1", rates=[0.9, 0.1])


def test_listed_rates_share_what_goes() -> None:
    scene = make_scene(make_classifier("vgg"), random_images((1, 8, 8)), 0.2)
    prune(scene, "filter-l1", rates=[0.0, 0.0, 0.6, 0.3])
    first, second, third, fourth = (1 - each["after"] / each["before"] for each in scene.figures["filters"]["groups"])
    assert first == second == 0 and third == pytest.approx(2 * fourth, abs=0.11) and third > 0


def _weights(model: nn.Module, layer: str, sums: Sequence[float]) -> None:
    with torch.no_grad():
        weight = model.get_parameter(f"{layer}.weight")
        weight.copy_(torch.tensor(sums).view(-1, 1, 1, 1).expand_as(weight) / weight[0].numel())


@pytest.mark.parametrize(("order", "kept"), [("smallest", [3.0, 4.0, 5.0, 6.0]), ("largest", [1.0, 2.0, 3.0, 4.0])])
def test_the_filters_of_smallest_or_largest_sum_go(order: str, kept: list[float]) -> None:
    model = make_classifier("vgg")
    _weights(model, "network.body.0", [3, 1, -6, 5, -2, 4])
    scene = make_scene(model, random_images((1, 8, 8)), 0.06)
    prune(scene, "filter-l1", order=order, rates=[0.5, 0.0, 0.0, 0.0])
    sums = model.get_parameter("network.body.0.weight").abs().sum(dim=(1, 2, 3))
    assert sorted(round(each, 4) for each in sums.tolist()) == kept


def test_greedy_does_not_count_kernels_of_filters_that_are_gone() -> None:
    removed = {}
    for selection in ("independent", "greedy"):
        model = make_classifier("vgg")
        _weights(model, "network.body.0", [0.1, 1, 2, 3, 4, 5])
        weight = model.get_parameter("network.body.3.weight")
        with torch.no_grad():
            weight.fill_(1.0)
            weight[2] = 0.0
            weight[2, 0] = 100.0  # reads almost nothing but the first filter, which goes
            weight[4] = 0.9
            model.get_submodule("network.body.4").bias.copy_(torch.arange(6.0))
        scene = make_scene(model, random_images((1, 8, 8)), 0.07)
        prune(scene, "filter-l1", selection=selection, rates=[0.2, 0.2, 0.0, 0.0])
        left = model.get_submodule("network.body.4").bias.tolist()
        (removed[selection],) = {0, 1, 2, 3, 4, 5} - set(left)
    assert removed == {"independent": 4, "greedy": 2}


def test_residual_stages_follow_their_shortcut() -> None:
    groups = Groups.of(make_classifier("resnet-basic"), (3, 32, 32)).groups
    leaders = {group.name: [member.name for member in group.writers] for group in groups if len(group.writers) > 1}
    stage = "resnet.encoder.stages.1.layers.0.shortcut.convolution"
    assert stage in leaders
    assert {"resnet.encoder.stages.1.layers.0.layer.1.convolution",
            "resnet.encoder.stages.1.layers.1.layer.1.convolution"} <= set(leaders[stage])  # fmt: skip
    inner = "resnet.encoder.stages.1.layers.1.layer.0.convolution"
    assert [group.name for group in groups if [each.name for each in group.writers] == [inner]] == [inner]


def test_layers_that_may_not_be_pruned_keep_their_filters() -> None:
    model = make_classifier("vgg")
    kept = [layer for layer in layers_of(model) if layer.name != "network.body.3"]
    scene = Scene(model, kept, 0.3, images=random_images((1, 8, 8)))
    prune(scene, "filter-l1")
    assert model.get_submodule("network.body.3").out_channels == 6


@pytest.fixture(scope="module")
def digits() -> TensorImages:
    pixels, labels = load_digits(return_X_y=True)
    return TensorImages(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1, torch.tensor(labels))


def _digit_network() -> ReferenceNetwork:
    torch.manual_seed(0)
    return ReferenceNetwork(ReferenceConfig(network="vgg", hidden_sizes=[8, 12], image_size=8, num_labels=10)).eval()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def test_a_run_that_was_stopped_ends_as_one_that_was_not(digits: TensorImages, tmp_path: Path) -> None:
    parameters = {"filters_per_round": 3, "retrain_steps": 2, "measured_images": 32, "retrain_batch_size": 16}
    whole = make_scene(_digit_network(), digits, 0.3)
    prune(whole, "filter-taylor", **parameters)
    done: list[float] = []
    observer = Observer(on_progress=done.append, should_stop=lambda: len(done) >= 2)
    stopped = make_scene(_digit_network(), digits, 0.3, rounds=Rounds(tmp_path, "same"), observer=observer)
    with pytest.raises(RecoveryStopped):
        prune(stopped, "filter-taylor", **parameters)
    assert len(stopped.figures["filters"]["rounds"]) == 2
    resumed = make_scene(_digit_network(), digits, 0.3, rounds=Rounds(tmp_path / "second", "same", [tmp_path]))
    prune(resumed, "filter-taylor", **parameters)
    assert len(whole.figures["filters"]["rounds"]) > 2 and resumed.figures == whole.figures
    expected = _state(whole.model)
    assert all(torch.equal(each, expected[name]) for name, each in _state(resumed.model).items())


@pytest.fixture(scope="module")
def trained(digits: TensorImages) -> dict[str, Tensor]:
    model = _digit_network()
    retrain(model, digits, Recovery(method="finetune", steps=60, batch_size=64, learning_rate=0.01), {})
    return model.state_dict()


def _trained_network(trained: dict[str, Tensor]) -> ReferenceNetwork:
    model = _digit_network()
    model.load_state_dict(trained)
    return model


def test_taylor_removes_filters_of_a_trained_network_at_less_loss_than_random(
    digits: TensorImages, trained: dict[str, Tensor]
) -> None:
    losses = {}
    for ranking in ("taylor", "random"):
        scene = make_scene(_trained_network(trained), digits, 0.3)
        prune(scene, "filter-taylor", ranking=ranking, retrain_steps=0, filters_per_round=4, measured_images=128)
        losses[ranking] = mean_loss(scene, digits)
    assert losses["taylor"] < losses["random"]


def test_sensitivity_takes_more_where_it_costs_less(digits: TensorImages, trained: dict[str, Tensor]) -> None:
    model = _trained_network(trained)
    with torch.no_grad():
        norm = model.get_submodule("network.body.8")
        norm.weight[6:] = norm.bias[6:] = 0.0  # half of the third layer gives nothing
        model.get_parameter("network.body.7.weight")[6:] *= 0.01
    scene = make_scene(model, digits, 0.3)
    prune(scene, "filter-l1", rates="sensitivity")
    left = [each["after"] / each["before"] for each in scene.figures["filters"]["groups"]]
    assert min(left) == left[2] < 0.6 < sorted(left)[1]
    curve = scene.figures["sensitivity"][2]
    assert curve["rates"][0] == 0 and curve["losses"][5] == pytest.approx(curve["losses"][0], abs=1e-5)


def test_the_report_says_how_every_ranking_agrees_with_the_oracle(
    digits: TensorImages, trained: dict[str, Tensor]
) -> None:
    scene = make_scene(_trained_network(trained), digits, 0.05)
    prune(scene, "filter-taylor", compare=True, measured_images=64, retrain_steps=0)
    figures = json.loads(json.dumps(scene.figures))
    assert figures["rankings"]["images"] == 64
    agreement = {name: each["all"] for name, each in figures["rankings"]["spearman"].items()}
    assert agreement["taylor"] > max(agreement["random"], agreement["minimum_weight"])
