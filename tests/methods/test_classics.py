"""Optimal Brain Damage, Optimal Brain Surgeon and iterative magnitude pruning: on whole networks, and on quadratics."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.engine.datasets.image_set import ImageSet
from core.engine.pruning.layer_matrix import layer_of, set_matrix, to_matrix
from core.engine.pruning.network import loss_and_accuracy, mean_loss
from core.engine.resume.store import ResumeStore
from core.methods.classifiers.dead_neurons import remove_dead_neurons
from core.methods.classifiers.iterative_magnitude import (
    cut_layer,
    layer_sensitivity_curves,
    layers_before_dropout,
    rewind,
    scaled_dropout,
)
from core.methods.classifiers.obd import mean_squares
from core.methods.classifiers.obs import inverse_hessian, obs_prune
from core.progress import Progress, WorkStopped
from secateur_wire.errors import InvalidParameters, InvalidSparsity
from tests.engine.classifying import (
    Plain,
    digits,
    network,
    prune,
    random_images,
    scene,
    shapes,
    trained_digits,
    zeros,
)

QUICK: dict[str, dict[str, Any]] = {
    "obd": {"rounds": 3, "retrain_steps": 5, "curvature_images": 100},
    "iterative-magnitude": {"rounds": 3, "retrain_steps": 5, "scan_images": 100, "remove_dead_neurons": False},
    "obs": {"mode": "exact", "reestimate_every": 100, "curvature_images": 100},
}


def prunable(model: nn.Module) -> int:
    return sum(shape.numel for shape in shapes(model))


@pytest.mark.parametrize("method", QUICK)
def test_stopped_and_taken_up_again_it_ends_with_the_same_weights(method: str, tmp_path: Path) -> None:
    def run(folder: str, stop_after: int | None = None, previous: list[Path] | None = None) -> nn.Module:
        model, asked = trained_digits(), itertools.count()

        class Asked(Progress):
            def should_stop(self) -> bool:
                return stop_after is not None and next(asked) > stop_after

        store = ResumeStore(tmp_path / folder, "settings", previous or [])
        place = scene(model, digits(), sparsity=0.8, batch_size=500, store=store, progress=Asked())
        prune(method, place, **QUICK[method])
        return model

    whole = run("whole").state_dict()
    with pytest.raises(WorkStopped):
        run("one", stop_after=3 if method == "obs" else 14)
    again = run("two", previous=[tmp_path / "one"]).state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("method", ["obd", "iterative-magnitude"])
def test_zeros_hold_through_every_step_of_retraining(method: str) -> None:
    model = trained_digits()
    seen: list[int] = []

    class Counting(Progress):
        def metric(self, name: str, step: int, value: float) -> None:
            seen.append(sum(zeros(model).values()))

    prune(method, scene(model, digits(), sparsity=0.75, batch_size=500, progress=Counting()), **QUICK[method])
    expected = [round(0.75 * prunable(model) * share / 3) for share in (1, 2, 3)]
    assert len(seen) == 15
    for step, found in enumerate(seen):
        assert abs(found - expected[step // 5]) <= 2  # rounding, layer by layer


def test_rounds_train_on_the_images_of_the_recovery_where_there_are_any() -> None:
    def weights(training: ImageSet | None) -> Tensor:
        place = scene(trained_digits(), digits(), sparsity=0.5, batch_size=500, training=training)
        prune("obd", place, **QUICK["obd"])
        return nn.utils.parameters_to_vector(place.model.parameters())

    assert torch.equal(weights(None), weights(digits()))
    assert not torch.equal(weights(None), weights(random_images(100, (1, 8, 8))))


def test_obd_reports_what_it_predicted_and_what_came() -> None:
    place = scene(trained_digits(), digits(), sparsity=0.3, batch_size=500)
    before = mean_loss(place, digits())
    h = mean_squares(place, digits(), "gauss_newton")
    dense = {name: to_matrix(layer_of(place.model, name)).clone() for name in h}
    prune("obd", place, rounds=1, retrain_steps=0, curvature_images=None)
    (row,) = place.figures["rounds"]
    saliencies = {name: weight.square() * h[name] / 2 for name, weight in dense.items()}
    gone = {name: to_matrix(layer_of(place.model, name)) == 0 for name in h}
    predicted = sum(float(saliencies[name][gone[name]].sum()) for name in h)
    assert row["predicted_increase"] == pytest.approx(predicted, rel=1e-4)
    assert row["measured_increase"] == pytest.approx(mean_loss(place, digits()) - before, abs=1e-6)
    assert max(float(saliencies[name][gone[name]].max()) for name in h) <= min(
        float(saliencies[name][~gone[name]].min()) for name in h
    )


def test_the_exact_inverse_of_a_large_network_is_refused_with_what_it_would_take() -> None:
    model = network("lenet-300-100")
    with pytest.raises(InvalidParameters, match=r"266200 weights at once, 566\.9 GB.*'layer_wise'"):
        prune("obs", scene(model, random_images(4, (1, 28, 28)), sparsity=0.5), mode="exact")


def test_a_scan_leaves_the_layers_as_they_were_and_measures_one_at_a_time() -> None:
    model = trained_digits()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    place = scene(model, digits(), batch_size=500)
    curves = layer_sensitivity_curves(
        place, digits(), [0.5, 0.9], lambda shape, rate: cut_layer(place, shape.name, round(rate * shape.numel))
    )
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    for shape in place.layers:
        cut_layer(place, shape.name, round(0.9 * shape.numel))
        assert curves[shape.name][1] == (0.9, *loss_and_accuracy(place, digits()))
        model.load_state_dict(before)


def test_rates_follow_sensitivity_and_sum_to_the_sparsity() -> None:
    place = scene(trained_digits(), digits(), sparsity=0.8, batch_size=500)
    prune("iterative-magnitude", place, rounds=1, retrain_steps=0, remove_dead_neurons=False)
    removed = place.figures["removed"]
    assert sum(removed.values()) == round(0.8 * 888)
    assert set(place.figures["scan"]["layers"]) == set(removed)
    assert removed == zeros(place.model)
    with pytest.raises(InvalidSparsity, match=r"scan_rates"):
        prune("iterative-magnitude", scene(trained_digits(), digits(), sparsity=0.99), scan_rates=[0.5, 0.9])


def test_rewinding_keeps_zeros_and_sets_the_rest_back() -> None:
    model = trained_digits()
    early = {name: each.clone() for name, each in model.state_dict().items()}
    place = scene(model, digits())
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(2)
    cut_layer(place, "network.head", 100)
    gone = to_matrix(layer_of(model, "network.head")) == 0
    rewind(place, early)
    expected = early["network.head.weight"].masked_fill(gone, 0)
    assert torch.equal(to_matrix(layer_of(model, "network.head")), expected)
    assert torch.equal(model.state_dict()["network.body.1.bias"], early["network.body.1.bias"])


def test_dropout_falls_with_the_root_of_the_connections_left() -> None:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), nn.Dropout(0.0)]
    place = scene(Plain(nn.Sequential(*layers)), random_images(4, (1, 2, 2), classes=3))
    cut_layer(place, "body.1", 24)
    before = layers_before_dropout(place)
    assert before == {"body.3": "body.1"}
    with scaled_dropout(place, before) as rates:
        assert rates == {"body.3": 0.25} and place.module("body.3").p == 0.25
    assert place.module("body.3").p == 0.5


CHAINS: dict[str, Callable[[], list[nn.Module]]] = {
    "linear": lambda: [
        nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3),
    ],
    "convolutions": lambda: [
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 5, 2), nn.MaxPool2d(1), nn.Flatten(),
        nn.Linear(5, 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_dead_neurons_go_and_no_output_changes(chain: str) -> None:
    torch.manual_seed(0)
    model = Plain(nn.Sequential(*CHAINS[chain]())).eval()
    images = random_images(8, (1, 4, 4), classes=3)
    place = scene(model, images)
    first, second, head = (layer_of(model, each.name) for each in place.layers)
    with torch.no_grad():
        first.weight[1] = 0  # reads nothing, and sends its bias
        second.weight[:, 4] = 0  # nothing reads the first layer's neuron 4
        set_matrix(second, to_matrix(second).index_fill(0, torch.tensor([2]), 0))
    expected = model(images.batch(range(8))).logits
    dead = remove_dead_neurons(place)
    torch.testing.assert_close(model(images.batch(range(8))).logits, expected, rtol=1e-4, atol=1e-5)
    assert not first.weight[4].any() and first.bias is not None and first.bias[4] == 0
    assert not second.weight[:, 1].any()
    assert not head.weight[:, 2].any()
    assert dead["dead_neurons"] == 3
    positions = first.weight[0].numel() + second.weight[:, 1].numel() - second.weight[2, 1].numel() + 3
    assert dead["weights_of_dead_neurons"] == positions
    assert place.notes == []


def test_neurons_that_a_padded_convolution_or_a_shortcut_reads_keep_what_cannot_be_folded() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)

        def forward(self, maps: Tensor) -> Tensor:
            maps = self.first(maps)
            maps = maps + self.second(maps.relu())
            return self.head(maps.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Plain(Shortcut()).eval()
    images = random_images(8, (1, 5, 5), classes=3)
    with torch.no_grad():
        model.body.first.weight[1] = 0
        model.body.first.bias.fill_(1)  # what neuron 1 sends is 1, and 0 beyond the border
        model.body.second.weight[:, 3] = 0  # its reader is the head, past the shortcut
    expected = model(images.batch(range(8))).logits
    place = scene(model, images)
    dead = remove_dead_neurons(place)
    torch.testing.assert_close(model(images.batch(range(8))).logits, expected, rtol=1e-4, atol=1e-5)
    assert model.body.first.weight[3].any()
    assert (
        dead["weights_of_dead_neurons"] == 4 and model.body.second.weight[:, 1].count_nonzero() == 4 * 9 - 4
    )  # all but the middle


sizes = st.integers(2, 14)
seeds = st.integers(0, 2**31)


def make_quadratic(size: int, seed: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3 * size, size, generator=generator, dtype=torch.float64)
    hessian = vectors.T @ vectors / len(vectors) + 0.01 * torch.eye(size, dtype=torch.float64)
    return torch.randn(rows, size, generator=generator, dtype=torch.float64), hessian


def cost(difference_RP: Tensor, hessian: Tensor) -> Tensor:
    return ((difference_RP @ hessian) * difference_RP).sum(dim=1) / 2


def one_at_a_time(weight: Tensor, hessian: Tensor, count: int) -> Tensor:
    """The paper's procedure with the inverse of the Hessian of the weights that are left taken anew each time."""
    weight, left = weight.clone(), list(range(len(weight)))
    for _ in range(count):
        inverse = torch.linalg.inv(hessian[left][:, left])
        place = int((weight[left] ** 2 / (2 * inverse.diagonal())).argmin())
        weight[left] -= weight[left[place]] / inverse[place, place] * inverse[:, place]
        weight[left.pop(place)] = 0
    return weight


@given(sizes, seeds, st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_the_papers_procedure_with_each_inverse_taken_anew(size: int, seed: int, data: st.DataObject) -> None:
    weights, hessian = make_quadratic(size, seed)
    counts = torch.tensor([data.draw(st.integers(0, size)) for _ in weights])
    deletion = obs_prune(weights, torch.linalg.inv(hessian), counts)
    expected = torch.stack([one_at_a_time(w, hessian, int(n)) for w, n in zip(weights, counts, strict=True)])
    torch.testing.assert_close(deletion.weights_RP, expected, rtol=1e-7, atol=1e-9)
    assert deletion.deleted_RP.sum(dim=1).tolist() == counts.tolist()
    assert not deletion.weights_RP[deletion.deleted_RP].any()


@given(sizes, seeds, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_update_costs_what_is_predicted_and_never_more_than_deletion(size: int, seed: int, share: float) -> None:
    weights, hessian = make_quadratic(size, seed)
    counts = torch.full((len(weights),), round(share * size))
    deletion = obs_prune(weights, torch.linalg.inv(hessian), counts)
    updated = cost(deletion.weights_RP - weights, hessian)
    torch.testing.assert_close(updated, deletion.increases_RT.sum(dim=1), rtol=1e-7, atol=1e-12)
    deleted = cost(weights.masked_fill(deletion.deleted_RP, 0) - weights, hessian)
    assert (updated <= deleted * (1 + 1e-9) + 1e-12).all()


@given(sizes, seeds, st.integers(1, 9), st.floats(1e-6, 1))
@settings(max_examples=40, deadline=None)
def test_the_recursion_comes_to_the_inverse(size: int, seed: int, block: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(3 * size, size, generator=generator, dtype=torch.float64)
    inverse = inverse_hessian(vectors.split(block), size, alpha=alpha, samples=17)
    hessian = vectors.T @ vectors / 17 + alpha * torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(inverse, torch.linalg.inv(hessian), rtol=1e-6, atol=1e-9)


def test_what_is_gone_stays_and_what_may_not_go_moves() -> None:
    weights, hessian = make_quadratic(10, 3)
    gone = torch.zeros_like(weights, dtype=torch.bool)
    gone[:, 2] = True
    weights[gone] = 0
    hessian[2] = hessian[:, 2] = 0
    hessian[2, 2] = 1
    deletion = obs_prune(weights, torch.linalg.inv(hessian), torch.tensor([4, 4, 4]), deleted_RP=gone, prunable=7)
    assert deletion.deleted_RP[:, :7].sum(dim=1).tolist() == [5, 5, 5] and deletion.deleted_RP[:, 2].all()
    assert not deletion.deleted_RP[:, 7:].any()
    assert (deletion.weights_RP[:, 7:] != weights[:, 7:]).all()
