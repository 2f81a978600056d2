"""Models pruned with compensation: the asked zeros stay, what is left comes nearer to the dense model."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.pruning.results import LayerRow
from core.methods.frontier.info import FRONTIER
from tests.engine.crossing import crossed, partly
from tests.engine.sweeping import save, sweep, tensors_of
from tests.engine.tiny import make_model, make_tokens
from tests.families import LANGUAGE_MODELS

METHODS = ["magnitude", "sparsegpt", "admm"]
PROPAGATIONS = ["in_flight", "two_pass"]
BOTH = {"refit": 0.5, "conjugate_gradient": 10}
Plain = Callable[[str, str, str], dict[str, Tensor]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


def prune(
    folder: Path, work: Path, method: str, compensation: dict[str, Any] | None, **request: Any
) -> dict[str, Tensor]:
    parameters = {"forward_dtype": "float32", "micro_batch": 4, **request.pop("parameters", {})}
    if compensation is not None:
        parameters["compensation"] = compensation
    request = {"sparsity": 0.5} | request
    return tensors_of(sweep(folder, work, calibration=make_tokens(10), method=method, parameters=parameters, **request))


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """Return what a method leaves of the tiny model in a pattern and a propagation, without compensation: made once."""

    @cache
    def made(method: str, pattern: str, propagation: str) -> dict[str, Tensor]:
        work = tmp_path_factory.mktemp("plain")
        return prune(tiny, work, method, None, pattern=pattern, parameters={"propagation": propagation})

    return made


@crossed("method, propagation", METHODS, PROPAGATIONS)
def test_nothing_asked_for_is_nothing_done(
    tiny: Path, tmp_path: Path, plain: Plain, method: str, propagation: str
) -> None:
    way = {"propagation": propagation}
    before = plain(method, "unstructured", propagation)
    same = prune(tiny, tmp_path / "same", method, {"refit": 0.0, "conjugate_gradient": 0}, parameters=way)
    assert all(torch.equal(before[name], same[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_at_sparsity_zero_the_model_is_what_it_was(tiny: Path, tmp_path: Path, method: str) -> None:
    after = prune(tiny, tmp_path, method, {"refit": "auto", "conjugate_gradient": 10}, sparsity=0.0)
    before = load_file(tiny / "model.safetensors")
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], atol=1e-4, rtol=1e-4)


@crossed(
    "way, propagation",
    [*((each, "unstructured") for each in METHODS), *((each, "2:4") for each in reversed(METHODS))],
    PROPAGATIONS,
)
def test_with_every_method_the_asked_zeros_stay_and_other_weights_move(
    tiny: Path,
    tmp_path: Path,
    plain: Plain,
    way: tuple[str, str],
    propagation: str,
) -> None:
    method, pattern = way
    fitted = prune(tiny, tmp_path, method, BOTH, pattern=pattern, parameters={"propagation": propagation})
    before = plain(method, pattern, propagation)
    for name in (name for name in before if "proj" in name):
        assert int((fitted[name] == 0).sum()) == int((before[name] == 0).sum()) == before[name].numel() // 2, name
    assert any(not torch.equal(before[name], fitted[name]) for name in before)


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
    preset = FRONTIER["quick"]
    turns = {"iterations": preset.iterations, "allocation": "fisher"}
    said = prune(tiny, tmp_path / "said", "admm", preset.compensation.model_dump(mode="json"), parameters=turns)
    own = prune(tiny, tmp_path / "own", "frontier", {"refit": 0.0}, parameters=turns)
    plain = prune(tiny, tmp_path / "plain", "admm", None, parameters=turns)
    assert all(torch.equal(named[name], said[name]) and torch.equal(own[name], plain[name]) for name in named)
    assert any(not torch.equal(named[name], plain[name]) for name in named)


@partly("family", LANGUAGE_MODELS, in_every_run=["gpt2", "gemma2"])
def test_the_refit_brings_the_calibration_tokens_nearer_to_the_dense_model(tmp_path: Path, family: str) -> None:
    """Layers that write to the stream through a norm are compensated too: their own outputs are then the target."""
    folder, tokens = make_model(tmp_path / "model", family), make_tokens(48)

    def last_hidden(place: Path) -> Tensor:
        with torch.inference_mode():
            answer = AutoModelForCausalLM.from_pretrained(place)(tokens, output_hidden_states=True)
        return answer.hidden_states[-1]

    def distance(name: str, compensation: dict[str, Any] | None) -> float:
        parameters: dict[str, Any] = {"forward_dtype": "float32", "compensation": compensation}
        work = tmp_path / name
        made = sweep(folder, work, calibration=tokens, method="sparsegpt", sparsity=0.5, parameters=parameters)
        return float((last_hidden(save(made, folder, work / "saved")) - last_hidden(folder)).norm())

    assert distance("fitted", {"refit": 1.0}) < distance("plain", None)


def test_the_dense_lane_is_the_dense_model(tiny: Path, tmp_path: Path) -> None:
    """The first group of the first block, with nothing pruned ahead, sees the dense inputs: no drift, no refit."""
    fitted = prune(tiny, tmp_path / "fitted", "sparsegpt", {"refit": 1.0})
    plain = prune(tiny, tmp_path / "plain", "sparsegpt", None)
    first = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(fitted[first], plain[first])
    later = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(fitted[later], plain[later])
