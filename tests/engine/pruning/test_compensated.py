"""Models pruned with compensation: the asked zeros and counts stay, what is left comes nearer to the dense model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.models.folder import open_model
from core.engine.pruning.results import LayerRow, PruneResult
from core.engine.pruning.units.removal import KeptUnits
from core.methods.depth import Depth
from core.methods.descriptions.frontier import PRESETS
from core.pipeline.plans import make_plan
from secateur_wire.errors import InvalidRequest
from tests.engine.crossing import crossed, partly
from tests.engine.pruning.test_structured import removal
from tests.engine.sweeping import last_hidden, newest_stream, request_for, save, sweep, tensors_of
from tests.engine.tiny import make_model, make_tokens
from tests.families import LANGUAGE_MODELS

BOTH = {"refit": 0.5, "conjugate_gradient": 10}
SECOND_LAYER_GONE = KeptUnits(layers={layer: {} for layer in (0, 2, 3)})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"), num_hidden_layers=4)


def prune(
    folder: Path, work: Path, method: str, compensation: dict[str, Any] | None, **request: Any
) -> dict[str, Tensor]:
    parameters = {"forward_dtype": "float32", "micro_batch": 4, **request.pop("parameters", {})}
    if compensation is not None:
        parameters["compensation"] = compensation
    request = {"sparsity": 0.5} | request
    return tensors_of(sweep(folder, work, calibration=make_tokens(10), method=method, parameters=parameters, **request))


def cut(
    folder: Path, work: Path, method: str, compensation: dict[str, Any] | None, calibration: Tensor | None
) -> PruneResult:
    parameters = {} if compensation is None else {"compensation": compensation}
    return removal(folder, work, method, 0.25, parameters=parameters, calibration=calibration)


def drift(result: PruneResult, folder: Path, place: Path, tokens: Tensor) -> float:
    """Return ‖h − ĥ‖ / ‖h‖, where h leaves the dense model's last block and ĥ the pruned model's."""
    dense = last_hidden(folder, tokens)
    return float((dense - last_hidden(save(result, folder, place), tokens)).norm() / dense.norm())


@pytest.mark.parametrize(
    ("method", "pattern", "propagation"),
    [
        ("magnitude", "unstructured", "two_pass"),
        ("sparsegpt", "unstructured", "in_flight"),
        ("admm", "2:4", "two_pass"),
        ("sparsegpt", "2:4", "in_flight"),
    ],
)
def test_the_asked_zeros_stay_and_other_weights_move_where_that_is_asked(
    tiny: Path, tmp_path: Path, method: str, pattern: str, propagation: str
) -> None:
    before, fitted, same = (
        prune(tiny, tmp_path / f"{number}", method, each, pattern=pattern, parameters={"propagation": propagation})
        for number, each in enumerate((None, BOTH, {"refit": 0.0, "conjugate_gradient": 0}))
    )
    for name in (name for name in before if "proj" in name):
        assert int((fitted[name] == 0).sum()) == int((before[name] == 0).sum()) == before[name].numel() // 2, name
    assert any(not torch.equal(before[name], fitted[name]) for name in before)
    assert all(torch.equal(before[name], same[name]) for name in before)


def test_what_was_chosen_is_in_the_rows(tiny: Path, tmp_path: Path) -> None:
    auto = {"refit": "auto", "conjugate_gradient": 10}
    made = sweep(
        tiny, tmp_path / "auto", calibration=make_tokens(16), method="sparsegpt", sparsity=0.5,
        parameters={"compensation": auto},
    )  # fmt: skip
    rows = [row for row in made.layers if isinstance(row, LayerRow)]
    assert all(row.ridge == 0.01 and row.refit is not None and 0 <= row.refit <= 1 for row in rows)
    assert all(row.conjugate_gradient == 10 for row in rows)
    assert len({row.refit for row in rows}) > 1
    plain = sweep(tiny, tmp_path / "plain", calibration=make_tokens(16), method="sparsegpt", sparsity=0.5)
    assert all((row.refit, row.conjugate_gradient) == (None, None) for row in plain.layers if isinstance(row, LayerRow))


def test_frontier_is_admm_with_the_choices_of_its_budget(tiny: Path, tmp_path: Path) -> None:
    named = prune(tiny, tmp_path / "named", "frontier", None, parameters={"budget": "quick"})
    preset = PRESETS["quick"]
    turns = {"iterations": preset.iterations, "allocation": "fisher"}
    said = prune(tiny, tmp_path / "said", "admm", preset.compensation.model_dump(mode="json"), parameters=turns)
    own = prune(tiny, tmp_path / "own", "frontier", {"refit": 0.0}, parameters=turns)
    plain = prune(tiny, tmp_path / "plain", "admm", None, parameters=turns)
    assert all(torch.equal(named[name], said[name]) and torch.equal(own[name], plain[name]) for name in named)
    assert any(not torch.equal(named[name], plain[name]) for name in named)


@partly("family", LANGUAGE_MODELS, in_every_run=["gpt2", "gemma2"])
def test_the_refit_brings_the_calibration_tokens_nearer_to_the_dense_model(tmp_path: Path, family: str) -> None:
    """Layers that write to the stream through a norm are compensated too: their own outputs are then the target."""
    folder, tokens, found = make_model(tmp_path / "model", family), make_tokens(48), []
    for name, compensation in (("plain", None), ("fitted", {"refit": 1.0})):
        parameters: dict[str, Any] = {"forward_dtype": "float32", "compensation": compensation}
        made = sweep(
            folder, tmp_path / name, calibration=tokens, method="sparsegpt", sparsity=0.5, parameters=parameters
        )
        found.append(drift(made, folder, tmp_path / name / "saved", tokens))
    assert found[1] < found[0]


@crossed("name, method", ["gpt2", "gemma2"], ["depth", "random-structured"])
def test_what_is_left_without_units_comes_closer_to_the_dense_model(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Families with every weight layout, with and without a norm before the stream, on the tokens of the fit."""
    monkeypatch.setattr(Depth, "plan", lambda method, context: context.plan_of(SECOND_LAYER_GONE))
    folder = make_model(tmp_path / "model", name, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 4})
    found = []
    for number, compensation in enumerate((None, {"refit": 1.0})):
        result = cut(folder, tmp_path / f"{number}", method, compensation, make_tokens(16))
        found.append(drift(result, folder, tmp_path / f"{number}-artifact", make_tokens(16)))
    assert found[1] < found[0] * 0.85


def test_half_precision_is_fitted_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are rounded before the tokens go on: what is fitted next makes up for the weights that are saved."""
    monkeypatch.setattr(Depth, "plan", lambda method, context: context.plan_of(SECOND_LAYER_GONE))
    folder = make_model(tmp_path / "model", num_hidden_layers=4, dtype=torch.bfloat16)
    tokens = make_tokens(16)
    plain = cut(folder, tmp_path / "plain", "depth", None, tokens)
    fitted = cut(folder, tmp_path / "fitted", "depth", {"refit": 1.0}, tokens)
    tensors = tensors_of(fitted)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert drift(fitted, folder, tmp_path / "saved", tokens) < 0.85 * drift(plain, folder, tmp_path / "a", tokens)
    went_on = newest_stream(tmp_path / "fitted", "calibration")
    torch.testing.assert_close(went_on, last_hidden(tmp_path / "saved", tokens), atol=2e-4, rtol=1e-4)


def test_what_was_chosen_is_reported_and_goes_no_further_than_all_the_way(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Depth, "plan", lambda method, context: context.plan_of(SECOND_LAYER_GONE))
    result = cut(tiny, tmp_path / "auto", "depth", {"refit": "auto"}, make_tokens(16))
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
        cut(tiny, tmp_path, "random-structured", {"refit": 0.5}, None)
    assert raised.value.param == "calibration"
