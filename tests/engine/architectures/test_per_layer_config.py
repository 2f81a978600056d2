"""transformers' own settings by layer, in the installed release: which classes read them, and which of ours do.

An artifact of a class that builds its layers from `per_layer_config` needs no modelling file of ours (ADR 11).
"""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.gguf.trained import FAMILIES, MIXTURES

READERS = {"diffusion_gemma", "dots3_note", "embedding_gemma2", "gemma4", "gemma4_unified", "neomme", "step3p7"}
"""Folders of transformers' models whose code reads a layer's own settings."""
_GEMMA_4 = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_SMALL = {
    **{name: each for name, each in {**FAMILIES, **MIXTURES}.items() if name != "gpt2"},  # its width has another name
    "gemma4": ("Gemma4TextConfig", _GEMMA_4 | {"head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 0}),
}


def test_the_classes_that_read_settings_by_layer_are_known() -> None:
    models = Path(transformers.__file__).parent / "models"
    found = {
        each.parent.name for each in models.glob("*/modeling_*.py") if "per_layer_config[" in each.read_text("utf-8")
    }
    assert found == READERS, "try what their layers read, and what artifacts need no longer, then say so in ADR 11"


@pytest.mark.parametrize("units", ["channels", "heads"])
def test_no_class_of_ours_builds_layers_of_different_shapes_by_itself(units: str) -> None:
    able = []
    for name, (kind, shape) in _SMALL.items():
        width = "moe_intermediate_size" if "moe_intermediate_size" in shape else "intermediate_size"
        setting = width if units == "channels" else "num_attention_heads"
        settings = {"vocab_size": 300, "per_layer_config": {0: {setting: 2}}, **shape}
        said = "nothing"
        try:
            with torch.device("meta"):
                AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings))
        except Exception as error:  # of what a class raises that asks the config of the whole model
            said = str(error)
        if f"'{setting}' is a per-layer attribute" not in said:
            able.append(f"{name} ({said[:200]})")
    assert not able, f"{', '.join(able)}: no refusal; write their artifacts with per_layer_config (ADR 11)"
