"""transformers' own settings by layer: classes that can read them need no modelling file of ours."""

import pytest
import transformers
from transformers import AutoModelForCausalLM

from tests.gguf.trained import FAMILIES


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "gpt2"])  # its width has another name
def test_a_class_cannot_build_layers_of_different_widths_by_itself(family: str) -> None:
    """A class that fails this reads `per_layer_config`: artifacts of its family then use that, as ADR 11 says."""
    kind, shape = FAMILIES[family]
    config = getattr(transformers, kind)(vocab_size=300, **shape, per_layer_config={0: {"intermediate_size": 64}})
    with pytest.raises(Exception, match="'intermediate_size' is a per-layer attribute"):
        AutoModelForCausalLM.from_config(config)
