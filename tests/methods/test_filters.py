"""The methods that remove filters."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.engine.evaluation.flops import count_flops
from core.engine.models.reference_networks import ReferenceNetwork
from core.engine.pruning.network import Network
from core.engine.pruning.retraining import retrain
from core.engine.recovery.request import Recovery
from core.engine.resume.store import ResumeStore
from core.progress import WorkStopped
from secateur_wire.errors import InvalidParameters, InvalidSparsity
from tests.engine.classifier_networks import layers_of, logits, make_classifier, make_scene, random_images
from tests.engine.classifying import digits, network, prune
from tests.engine.watching import Watching


@pytest.mark.parametrize(("method", "parameters"), [
    ("filter-l1", {"selection": "greedy", "rounds": 3}), ("filter-l1", {"rates": "sensitivity"}),
    ("filter-l1", {"round_to": 2}), ("filter-taylor", {"retrain_steps": 1}),
    ("filter-taylor", {"retrain_steps": 0, "flops_weight": 0.1, "filters_per_round": 3}),
])  # fmt: skip
def test_the_sparsity_is_reached_by_less_than_one_channel(method: str, parameters: dict[str, object]) -> None:
    model = make_classifier("vgg")
    scene, before = make_scene(model, random_images((1, 8, 8)), 0.4), model.num_parameters()
    prune(method, scene, **parameters)
    removed = 1 - model.num_parameters() / before
    dearest = 10 * 9 + 10 * 9 + 2  # a filter of the third layer: kernels in and out, and batch-norm
    assert 0.4 <= removed <= 0.4 + int(parameters.get("round_to", 1)) * dearest / before  # type: ignore[call-overload]
    record = scene.figures["filters"]
    assert record["parameters"] == {"before": before, "after": model.num_parameters()}
    assert record["flops"]["after"] == count_flops(model, (1, 8, 8)) < record["flops"]["before"]
    kept = {each["name"]: each["after"] for each in record["groups"]}
    assert all(model.get_submodule(name).out_channels == count for name, count in kept.items())
    assert all(count % int(parameters.get("round_to", 1)) == 0 for count in kept.values())  # type: ignore[call-overload]
    logits(model, random_images((1, 8, 8)))


def test_operations_can_be_the_goal() -> None:
    model = make_classifier("vgg")
    scene = make_scene(model, random_images((1, 8, 8)))
    prune("filter-taylor", scene, retrain_steps=0, flops_reduction=0.5)
    flops = scene.figures["filters"]["flops"]
    assert 0.5 <= 1 - flops["after"] / flops["before"] < 0.7


def test_a_whole_layer_is_never_removed() -> None:
    for method in ("filter-l1", "filter-taylor"):
        scene = make_scene(make_classifier("vgg"), random_images((1, 8, 8)), 0.995)
        with pytest.raises(InvalidSparsity, match=r"everything that is left of network\.body\.\d.*at most 0\.9"):
            prune(method, scene)
    scene = make_scene(make_classifier("vgg"), random_images((1, 8, 8)), 0.3)
    with pytest.raises(InvalidSparsity, match=r"network\.body\.0: at most 0\.\d+ of"):
        prune("filter-l1", scene, rates=[0.9, 0.1, 0.1, 0.1])
    with pytest.raises(InvalidParameters, match=r"4 groups of filters.*network\.body\.0, network\.body\.3"):
        prune("filter-l1", scene, rates=[0.9, 0.1])


def _weights(model: nn.Module, layer: str, sums: Sequence[float]) -> None:
    with torch.no_grad():
        weight = model.get_parameter(f"{layer}.weight")
        weight.copy_(torch.tensor(sums).view(-1, 1, 1, 1).expand_as(weight) / weight[0].numel())


@pytest.mark.parametrize(("order", "kept"), [("smallest", [3.0, 4.0, 5.0, 6.0]), ("largest", [1.0, 2.0, 3.0, 4.0])])
def test_the_filters_of_smallest_or_largest_sum_go(order: str, kept: list[float]) -> None:
    model = make_classifier("vgg")
    _weights(model, "network.body.0", [3, 1, -6, 5, -2, 4])
    scene = make_scene(model, random_images((1, 8, 8)), 0.06)
    prune("filter-l1", scene, order=order, rates=[0.5, 0.0, 0.0, 0.0])
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
        prune("filter-l1", scene, selection=selection, rates=[0.2, 0.2, 0.0, 0.0])
        left = model.get_submodule("network.body.4").bias.tolist()
        (removed[selection],) = {0, 1, 2, 3, 4, 5} - set(left)
    assert removed == {"independent": 4, "greedy": 2}


def test_layers_that_may_not_be_pruned_keep_their_filters() -> None:
    model = make_classifier("vgg")
    kept = [layer for layer in layers_of(model) if layer.name != "network.body.3"]
    scene = Network(model, kept, 0.3, images=random_images((1, 8, 8)))
    prune("filter-l1", scene)
    assert model.get_submodule("network.body.3").out_channels == 6


def _digit_network() -> ReferenceNetwork:
    return network("vgg", hidden_sizes=[8, 12], image_size=8)


@cache
def _trained() -> dict[str, Tensor]:
    model = _digit_network()
    retrain(model, digits(), Recovery(method="finetune", steps=60, batch_size=64, learning_rate=0.01), {})
    return model.state_dict()


def _trained_network() -> ReferenceNetwork:
    model = _digit_network()
    model.load_state_dict(_trained())
    return model


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    def run(store: ResumeStore | None = None, stop_after: int | None = None) -> Network:
        scene = make_scene(_digit_network(), digits(), 0.3, store=store, progress=Watching(stop_after))
        parameters = {"filters_per_round": 3, "retrain_steps": 2, "measured_images": 32, "retrain_batch_size": 16}
        return prune("filter-taylor", scene, **parameters)

    whole = run()
    with pytest.raises(WorkStopped):
        run(ResumeStore(tmp_path, "same"), 2)
    resumed = run(ResumeStore(tmp_path / "second", "same", [tmp_path]))
    assert len(whole.figures["filters"]["rounds"]) > 2 and resumed.figures == whole.figures
    expected = whole.model.state_dict()
    for name, each in resumed.model.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(each, expected[name])


def test_sensitivity_takes_more_where_it_costs_less() -> None:
    model = _trained_network()
    with torch.no_grad():
        norm = model.get_submodule("network.body.8")
        norm.weight[6:] = norm.bias[6:] = 0.0  # half of the third layer gives nothing
        model.get_parameter("network.body.7.weight")[6:] *= 0.01
    scene = make_scene(model, digits(), 0.3)
    prune("filter-l1", scene, rates="sensitivity")
    left = [each["after"] / each["before"] for each in scene.figures["filters"]["groups"]]
    assert min(left) == left[2] < 0.6 < sorted(left)[1]
    curve = scene.figures["sensitivity"][2]
    assert curve["rates"][0] == 0 and curve["losses"][5] == pytest.approx(curve["losses"][0], abs=1e-5)
