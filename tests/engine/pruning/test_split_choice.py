"""How a removal is split between heads and channels where nothing is said of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.models.folder import open_model
from core.engine.pruning.results import UnitRow
from tests.engine.pruning.test_structured import removal
from tests.engine.tiny import make_model

ONE_GROUP = 3 * 2 * (2 * 8 + 8) * 32
"""Parameters of a KV head with its two query heads, in all three layers."""


def model_without_use_of(units: str, folder: Path) -> tuple[Path, Tensor]:
    """A model that is sure of itself, but for a KV group or as many channels of each layer, and text it wrote."""
    make_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(8)
            if units == "heads" and "o_proj" in name:
                weight[:, 16:] = 0
            if units == "channels" and "down_proj" in name:
                weight[:, 16:32] = 0
    model.save_pretrained(folder)
    starts = torch.arange(8).unsqueeze(1)
    return folder, model.generate(starts, max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=0)


@pytest.mark.parametrize(("method", "layout"), [("random-structured", "uniform"), ("flap", "per_layer")])
@pytest.mark.parametrize("useless", ["heads", "channels"])
def test_what_the_text_misses_least_goes_and_the_report_says_by_how_much(
    useless: str, method: str, layout: Any, tmp_path: Path
) -> None:
    folder, text = model_without_use_of(useless, tmp_path / "model")
    ratio = ONE_GROUP / open_model(folder).description.parameters
    setting = {"layout": layout, "parameters": {"round_to": 1, "attention": "auto"}}
    result = removal(folder, tmp_path / "work", method, ratio, calibration=text, **setting)
    assert {row.kind for row in result.layers if isinstance(row, UnitRow)} == {useless, "channels"}
    left = {"heads": "3 of 6 heads and 144 of 144 channels", "channels": "6 of 6 heads and 96 of 144 channels"}
    assert f"{left[useless]}: " in result.notes[0] and result.notes[0].endswith(f"What stays is {left[useless]}.")

    blind = removal(folder, tmp_path / "blind", "random-structured", ratio, calibration=None, **setting)
    assert {row.kind for row in blind.layers if isinstance(row, UnitRow)} == {"channels"}
