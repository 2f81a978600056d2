"""What is left of a cut, fitted to what the dense model gave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.pruning import plan as pruning_plan
from core.engine.pruning.results import PruneResult
from core.engine.pruning.units.removal import KeptUnits
from core.methods.depth.method import Depth
from core.methods.random_structured.method import RandomStructured
from core.pipeline.plans import make_plan
from secateur_wire.errors import InvalidRequest
from tests.engine.crossing import crossed
from tests.engine.pruning.test_structured import edit, removal
from tests.engine.sweeping import last_hidden, newest_stream, request_for, tensors_of
from tests.engine.tiny import make_model, make_tokens

DEPTH = {"criterion": "angular"}
SECOND_LAYER_GONE = KeptUnits(layers={layer: {} for layer in (0, 2, 3)})
FEW_STEPS = {"budget": "quick", "steps": 10, "batch_size": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"), num_hidden_layers=4)


def cut(
    folder: Path, work: Path, method: str, compensation: dict[str, Any] | None, sparsity: float = 0.25, **setting: Any
) -> PruneResult:
    parameters = setting.pop("parameters", {})
    if compensation is not None:
        parameters = parameters | {"compensation": compensation}
    calibration = make_tokens(16)
    return removal(folder, work, method, sparsity, parameters=parameters, **{"calibration": calibration} | setting)


def drift(result: PruneResult, folder: Path, place: Path, tokens: Tensor) -> float:
    """‖h − ĥ‖ / ‖h‖ at the end of the blocks of the dense model and of what is left."""
    write_checkpoint(result.files, result.unchanged, folder, place, config=result.config)
    dense = last_hidden(folder, tokens)
    return float((dense - last_hidden(place, tokens)).norm() / dense.norm())


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("llm-pruner", {}), ("depth", DEPTH)],
)
def test_nothing_asked_for_is_nothing_done(method: str, parameters: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    plain = tensors_of(cut(tiny, tmp_path / "plain", method, None, parameters=parameters))
    same = tensors_of(cut(tiny, tmp_path / "same", method, {"refit": 0}, parameters=parameters))
    assert all(torch.equal(plain[name], same[name]) for name in plain)


@crossed("name, method", ["gpt2", "gemma2"], ["depth", "random-structured"])
def test_what_is_left_comes_closer_to_the_dense_model(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the tokens it was fitted to; with every weight layout, and with or without a norm before the stream."""
    monkeypatch.setattr(Depth, "select", lambda method, context: SECOND_LAYER_GONE)
    folder = make_model(tmp_path / "model", name, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 4})
    found = []
    for number, compensation in enumerate((None, {"refit": 1.0})):
        result = cut(folder, tmp_path / f"{number}", method, compensation)
        found.append(drift(result, folder, tmp_path / f"{number}-artifact", make_tokens(16)))
    assert found[1] < found[0] * 0.85


def test_half_precision_is_fitted_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are rounded before the tokens go on: what is fitted next makes up for the weights that are saved."""
    monkeypatch.setattr(Depth, "select", lambda method, context: SECOND_LAYER_GONE)
    folder = make_model(tmp_path / "model", num_hidden_layers=4, dtype=torch.bfloat16)
    plain = cut(folder, tmp_path / "plain", "depth", None)
    fitted = cut(folder, tmp_path / "fitted", "depth", {"refit": 1.0})
    tensors = tensors_of(fitted)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    tokens = make_tokens(16)
    assert drift(fitted, folder, tmp_path / "saved", tokens) < 0.85 * drift(plain, folder, tmp_path / "a", tokens)
    went_on = newest_stream(tmp_path / "fitted", "calibration")
    torch.testing.assert_close(went_on, last_hidden(tmp_path / "saved", tokens), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["loraprune", "bonsai"])
def test_methods_that_train_or_measure_refit_what_they_leave(method: str, tiny: Path, tmp_path: Path) -> None:
    few = {"masks_per_round": 10, "round_share": 0.3} if method == "bonsai" else FEW_STEPS
    found = []
    for number, compensation in enumerate((None, {"refit": 1.0})):
        result = cut(tiny, tmp_path / f"{number}", method, compensation, parameters=few)
        found.append(drift(result, tiny, tmp_path / f"{number}-artifact", make_tokens(16)))
    assert found[1] < found[0]


def test_kept_channels_take_over_what_their_removed_copies_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "model")
    halves = {f"model.layers.{layer}.mlp.{name}_proj.weight": double for layer in range(3) for name in ("gate", "up")}
    edit(folder, halves)
    kept = {"channels": list(range(24))}
    monkeypatch.setattr(
        RandomStructured,
        "select",
        lambda method, context: KeptUnits(layers=dict.fromkeys(range(3), kept)),
    )
    plain, fitted = (
        drift(cut(folder, tmp_path / name, "random-structured", each), folder, tmp_path / f"{name}-a", make_tokens(16))
        for name, each in (("plain", None), ("fitted", {"refit": 1.0, "ridge": 1e-6}))
    )
    assert plain > 0.1 and fitted < 1e-3


def double(weight: Tensor) -> None:
    weight[24:] = weight[:24]


@pytest.mark.parametrize("compensation", [{"refit": "auto"}], ids=["auto"])
def test_micro_batches_change_nothing_but_the_order_of_sums(
    compensation: dict[str, Any], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one's dense inputs and residual stream meet its own, and no other's."""
    monkeypatch.setattr(Depth, "select", lambda method, context: SECOND_LAYER_GONE)
    whole = tensors_of(cut(tiny, tmp_path / "whole", "depth", compensation))
    monkeypatch.setattr(pruning_plan, "MICRO_BATCH_TOKENS", 72)
    parts = tensors_of(cut(tiny, tmp_path / "parts", "depth", compensation))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=5e-3, rtol=5e-3)


def test_what_was_chosen_is_reported_and_goes_no_further_than_all_the_way(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Depth, "select", lambda method, context: SECOND_LAYER_GONE)
    result = cut(tiny, tmp_path / "auto", "depth", {"refit": "auto"})
    in_front = "model.layers.0.mlp.down_proj"
    linears = {each.name for each in open_model(tiny).description.linears if each.layer > 1}
    assert result.refits.keys() == linears | {in_front} and all(0 <= share <= 1 for share in result.refits.values())
    assert any(share > 0 for share in result.refits.values())
    before = {name: tensor for name, tensor in tensors_of(result).items() if ".layers.0." in name}
    stored = open_model(tiny).read
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, stored(name))]
    assert before and changed == [f"{in_front}.weight"], "nothing else has anything to make up for"
    assert any("refitted" in note and "chosen" in note for note in result.notes)
    folder = open_model(tiny)
    plan = make_plan(folder, request_for(folder, "depth", 0.25, parameters={"compensation": {"refit": "auto"}}))
    assert plan.facts()["compensation"]["refit"] == "auto"


def test_without_calibration_it_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="calibration is required") as raised:
        cut(tiny, tmp_path, "random-structured", {"refit": 0.5}, calibration=None)
    assert raised.value.param == "calibration"
