"""Sequences in a batch: each gets the logits it has alone, whatever stood in its row before."""

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from core.engine.models.continuous_batch import ContinuousBatch, begins_at_any_step, sample_continuations

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
}  # fmt: skip
_RECURRENT = ("Mamba", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4})


def _model(kind: str, sizes: dict[str, object]) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # strong enough that each token changes the logits
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    return model


@pytest.mark.parametrize("kind", _MODELS)
def test_a_sequence_in_another_s_row_gets_the_logits_it_has_alone(kind: str) -> None:
    model = _model(*_MODELS[kind])
    assert begins_at_any_step(model)
    batch = ContinuousBatch(model, replaces=True)
    first, second = [[(number * factor + 3) % 96 for number in range(30)] for factor in (7, 11)]
    batch.begin([first[:9], second[:5]])
    for place in range(10):
        batch.read([first[9 + place], second[5 + place]])
    late = [(number * 13 + 5) % 96 for number in range(12)]
    for place, token in enumerate(late):
        logits_BV = batch.read([token, second[15 + place]], [0] if place == 0 else [])
    for row, sequence in enumerate((late, second[:27])):
        alone_1V = ContinuousBatch(model, replaces=False).begin([sequence])
        torch.testing.assert_close(logits_BV[row], alone_1V[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["rotary positions", "recurrent"])
def test_sequences_of_any_lengths_are_continued_as_each_is_alone(kind: str) -> None:
    """The weights of the head are so large that a draw is the most likely token."""
    model = _model(*(_RECURRENT if kind == "recurrent" else _MODELS[kind]))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e4)
    given = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11], [12]]
    most = [9, 2, 7, 30, 1]

    def likeliest(ids: list[int], most: int, ends: set[int]) -> list[int]:
        written: list[int] = []
        while len(written) < most:
            token = int(ContinuousBatch(model, replaces=False).begin([[*ids, *written]])[0, :90].argmax())
            if token in ends:
                break
            written.append(token)
        return written

    ends = {likeliest(given[3], 30, set())[12]}
    batch = ContinuousBatch(model, replaces=begins_at_any_step(model))
    generator = torch.Generator().manual_seed(0)
    written = sample_continuations(batch, given, most=most, ends=ends, vocabulary=90, generator=generator)
    assert written == [likeliest(ids, room, ends) for ids, room in zip(given, most, strict=True)]
    assert len(written[3]) <= 12 and len(written[4]) <= 1
