"""The self-test refuses what an architecture says of a model and is not so, each thing for itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.architecture import Architecture, UnitAxis
from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.discovery.discover import discover_with_copy
from core.engine.discovery.self_test import failed_cuts, self_tested
from tests.engine.tiny import architecture_of, make_model


def changed(architecture: Architecture, kind: str, *axes: UnitAxis) -> Architecture:
    """Return an architecture with other axes of a kind of unit."""
    sublayers = [
        replace(each, units={**each.units, kind: axes}) if kind in each.units else each
        for each in architecture.sublayers
    ]
    return replace(architecture, sublayers=tuple(sublayers), discovered_by="a test")


OLMO, GEMMA = architecture_of("olmo2"), architecture_of("gemma3")
KEYS_LEFT_ALONE = changed(OLMO, "heads", *(axis for axis in OLMO.axes("heads") if "k_" not in axis.module))
GATE_FROM_BEHIND = changed(
    architecture_of("phi3"),
    "channels",
    UnitAxis("mlp.gate_up_proj", "out", ("channel:2",)),
    UnitAxis("mlp.down_proj", "in", ("channel",)),
)
TYPES_LEFT_ALONE = replace(GEMMA, lists_by_layer=(), discovered_by="a test")
CASES: dict[str, tuple[str, Architecture, set[str]]] = {
    "as it is": ("olmo2", replace(OLMO, discovered_by="a test"), set()),
    "a norm and keys that are not cut": ("olmo2", KEYS_LEFT_ALONE, {"heads"}),
    "channels in another order": ("phi3", GATE_FROM_BEHIND, {"channels"}),
    "a list by layer that is not cut": ("gemma3", TYPES_LEFT_ALONE, {"layers"}),
}


@pytest.mark.parametrize(("name", "architecture", "fails"), CASES.values(), ids=CASES)
def test_what_is_not_so_is_refused(
    name: str, architecture: Architecture, fails: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(LANGUAGE_ARCHITECTURES, architecture.architecture)
    (tmp_path / "work").mkdir()
    assert failed_cuts(make_model(tmp_path / "model", name), architecture, tmp_path / "work").keys() == fails


def test_layers_that_cannot_be_built_one_by_one_get_narrower_all_alike(tmp_path: Path) -> None:
    tiny_model("bamba", 0).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    tested = self_tested(*discover_with_copy(config, read_header(tmp_path / "model.safetensors")))
    assert "per_layer" in tested.refused and not {"channels", "heads", "uniform"} & tested.refused.keys()
    assert tested.axes("channels") and tested.axes("heads")
    assert "time_step_limit" not in tested.lists_by_layer, "a pair in a model of as many layers"
