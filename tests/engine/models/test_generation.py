"""Sequences in a batch are continued as each is alone."""

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from core.engine.models.generation import TokenWriter
from secateur_wire.errors import NotFiniteWeights

_SIZES = {"vocab_size": 96, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
_LLAMA = {**_SIZES, "intermediate_size": 48, "num_key_value_heads": 1, "max_position_embeddings": 128}
_SLIDING = {**_LLAMA, "head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
_MODELS = {
    "rotary positions": ("Llama", _LLAMA),
    "a sliding window shorter than the sequence": ("Gemma3Text", _SLIDING),
    "learned positions": ("GPT2", {"vocab_size": 96, "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 128}),
    "learned positions of the mask": (
        "OPT", {**_SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128}
    ),
    "linear biases": ("Bloom", {"vocab_size": 96, "hidden_size": 32, "n_head": 2, "n_layer": 2}),
    "recurrent": ("Mamba", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}  # fmt: skip


def _model(kind: str, sizes: dict[str, object]) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # strong enough that each token changes the logits
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    return model


@pytest.mark.parametrize("kind", _MODELS)
def test_sequences_of_any_lengths_are_continued_as_each_is_alone(kind: str) -> None:
    """The weights of the head are so large that a draw is the most likely token."""
    model = _model(*_MODELS[kind])
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e4)
    writer = TokenWriter(model, 90)
    given = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11], [12]]
    most = [9, 2, 7, 30, 1]

    def likeliest(ids: list[int], most: int, ends: set[int]) -> list[int]:
        written: list[int] = []
        while len(written) < most:
            token = int(model(torch.tensor([[*ids, *written]])).logits[0, -1, :90].argmax())
            if token in ends:
                break
            written.append(token)
        return written

    ends = {likeliest(given[3], 30, set())[12]}
    for generator in (None, torch.Generator().manual_seed(0)):
        written = writer.write(given, most=most, ends=ends, generator=generator)
        assert written == [likeliest(ids, room, ends) for ids, room in zip(given, most, strict=True)]
    assert len(written[3]) <= 12 and len(written[4]) <= 1


def test_logits_that_are_not_finite_are_refused() -> None:
    model = _model(*_MODELS["rotary positions"])
    writer = TokenWriter(model, 90)
    with torch.no_grad():
        model.get_output_embeddings().weight[89] = torch.inf
    with pytest.raises(NotFiniteWeights, match="not finite"):
        writer.write([[1, 2]], most=[3], ends=[])
