"""Bits per byte against their definition: bits of all predicted tokens over the bytes of their text."""

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from core.engine.datasets.token_windows import evaluation_set
from core.engine.evaluation.bits_per_byte import bits_per_byte, bits_ratio_stderr
from core.engine.models.folder import open_model
from core.engine.pruning.streams.measure import measure
from secateur_wire.metrics import Perplexity
from tests.engine.tiny import make_model


def test_the_figure_is_that_of_the_whole_model_on_the_text_by_hand(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    words = [f"w{number * 37 % 92 + 4}" for number in range(60)]
    text = evaluation_set([" ".join(words)], tokenizer, samples=None, length=20, name="words")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    nats, size = 0.0, 0
    for start in range(0, 60, 20):
        window = words[start : start + 20]
        ids = torch.tensor([[int(word[1:]) for word in window]])
        with torch.inference_mode():
            chances = model(ids).logits[0].double().log_softmax(-1)
        nats -= sum(float(chances[place, ids[0, place + 1]]) for place in range(19))
        size += sum(len(f" {word}") for word in window[1:])
    size += len("\n\n")  # which ends the document, and which no token follows
    measured = measure(
        open_model(folder), {"words": text.windows}, work=tmp_path / "work", device=torch.device("cpu"),
        activation_budget_bytes=2**20,
    )  # fmt: skip
    figures = Perplexity(dense=measured.perplexity["words"], pruned=2 * measured.perplexity["words"])
    bits = bits_per_byte(figures, tokens=text.predicted, text_bytes=text.text_bytes, stderr=None)
    assert (bits.tokens, bits.bytes) == (57, size)
    assert bits.dense == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert bits.pruned == pytest.approx(bits.dense + 57 / size), "a bit more for each token"
    assert bits.ratio == pytest.approx(bits.pruned / bits.dense)


def test_what_is_no_number_has_no_bits() -> None:
    for pruned in (math.nan, math.inf, None):
        bits = bits_per_byte(Perplexity(dense=10.0, pruned=pruned), tokens=9, text_bytes=30, stderr=None)
        assert bits.pruned is None and bits.ratio is None and bits.dense == pytest.approx(0.3 * math.log2(10))


def test_the_error_of_a_ratio_is_that_of_its_windows_in_pairs() -> None:
    dense = [2.0, 3.0, 2.5, 4.0]
    assert bits_ratio_stderr(dense, [1.5 * loss for loss in dense]) == pytest.approx(0.0), "every window says the same"
    pruned = [2.2, 3.1, 2.9, 4.0]
    ratio = sum(pruned) / sum(dense)
    squares = sum((after - ratio * before) ** 2 for before, after in zip(dense, pruned, strict=True))
    assert bits_ratio_stderr(dense, pruned) == pytest.approx(math.sqrt(squares / 3) / 2 / (sum(dense) / 4))
    for other in (pruned[:3], [], [*pruned[:3], math.inf]):
        assert bits_ratio_stderr(dense, other) is None and bits_ratio_stderr(dense[:3], pruned[:3]) is None
