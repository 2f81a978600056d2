"""Sequences in a batch get the logits each has alone, and tokens are drawn from the softmax of the logits."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from core.engine.models.continuous_batch import ContinuousBatch, begins_at_any_step, sample_continuations
from core.engine.models.sampling import draw_tokens
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


_DRAWS = 1024


def _shares(logits_V: torch.Tensor) -> torch.Tensor:
    """Return the share of each token among draws at evenly spaced places from 0 to 1."""
    uniform_B = (torch.arange(_DRAWS, dtype=torch.float64) + 0.5) / _DRAWS
    tokens_B = draw_tokens(logits_V.expand(_DRAWS, -1), uniform_B)
    return torch.bincount(tokens_B, minlength=len(logits_V)).double() / _DRAWS


@settings(max_examples=15)
@given(words=st.integers(1, 1500), spread=st.floats(0.0, 30.0), seed=st.integers(0, 999), dtype=st.sampled_from("fb"))
def test_tokens_are_as_frequent_as_their_probability(words: int, spread: float, seed: int, dtype: str) -> None:
    logits_V = spread * torch.randn(words, generator=torch.Generator().manual_seed(seed))
    logits_V = logits_V.to({"f": torch.float32, "b": torch.bfloat16}[dtype])
    expected_V = logits_V.double().softmax(0)
    # evenly spaced places leave less than one draw on either side of a token's interval
    assert (_shares(logits_V) - expected_V).abs().max() <= 1.01 / _DRAWS + 1e-6


def test_rare_tokens_at_the_end_of_a_large_vocabulary_keep_their_probability() -> None:
    words, rare = 2**18, 100
    logits_1V = torch.zeros(1, words)
    logits_1V[:, -rare:] = -12.0  # together 2.3e-9 of the draws, less than float32 resolves near 1
    share = rare * 6.144e-6 / (words - rare)
    for place, is_rare in ((1 - 2 * share, False), (1 - 0.5 * share, True), (1 - 1e-16, True)):
        (token,) = draw_tokens(logits_1V, torch.tensor([place], dtype=torch.float64)).tolist()
        assert (token >= words - rare) == is_rare, place


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits_BV = torch.zeros(2, 600)
    logits_BV[1, 599] = value
    with pytest.raises(NotFiniteWeights, match="not finite"):
        draw_tokens(logits_BV, torch.rand(2, dtype=torch.float64))
