"""Windows of the same spans of text in two tokenizations, and the perplexities that they give."""

import numpy
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from core.engine.datasets import token_windows
from core.engine.datasets.token_windows import evaluation_set, paired_set, text_length

LENGTH = 24


def trained(texts: list[str], size: int, *, begins: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE that was trained on texts; it begins each text with a token of its own where `begins`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    if begins:
        tokenizer.post_processor = TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    generator = numpy.random.default_rng(0)
    words = ["".join(generator.choice(["ba", "lo", "mé", "ri", "sun"], 3)) for _ in range(60)]
    return [" ".join(generator.choice(words, 80)) for _ in range(6)]


def test_windows_of_equal_tokenizations_are_those_of_one(documents: list[str]) -> None:
    tokenizer = trained(documents, 320, begins=True)
    usual = evaluation_set(documents, tokenizer, samples=8, length=LENGTH, name="text")
    paired = paired_set(documents, tokenizer, tokenizer, samples=8, length=LENGTH, name="text")
    for side in (paired.dense, paired.new):
        assert side.windows.tolist() == usual.windows.tolist()
        assert side.text_bytes == usual.text_bytes and side.spans is None and side.predicted == usual.predicted


@pytest.mark.parametrize("begins", [False, True])
def test_both_predict_the_same_text_in_every_window(documents: list[str], begins: bool) -> None:
    dense, new = (trained(documents, size, begins=begins) for size in (380, 290))
    paired = paired_set(documents, dense, new, samples=None, length=LENGTH, name="text")
    spans = paired.dense.spans, paired.new.spans
    assert spans[0] is not None and spans[1] is not None
    predicted = 0
    for row in range(len(paired.new.windows)):
        texts = []
        for tokenizer, side, span in zip((dense, new), (paired.dense, paired.new), spans, strict=True):
            first, end = span.spans[row]
            assert 0 < first < end <= LENGTH
            ids = side.windows[row, first:end].tolist()
            texts.append(b"".join(bytes_of(tokenizer, number) for number in ids))
        assert texts[0] == texts[1]
        predicted += len(texts[0])
    assert predicted == paired.dense.text_bytes == paired.new.text_bytes
    assert spans[0].counted == spans[1].counted and spans[0].total == sum(spans[0].counted)
    longest = [max(end for _, end in span.spans) for span in spans]
    assert longest[1] == LENGTH, "the longer tokenization fills its windows"
    length = text_length(documents, dense, new)
    assert (length.dense, length.pruned) == (paired.dense_tokens, paired.tokens) and length.ratio > 1
    assert length.words and all(each.pruned > each.dense for each in length.words)


def bytes_of(tokenizer: PreTrainedTokenizerFast, number: int) -> bytes:
    of = {character: byte for byte, character in bytes_to_unicode().items()}
    return bytes(of[each] for each in tokenizer.convert_ids_to_tokens(number))


def test_of_a_text_far_larger_than_what_is_asked_for_a_beginning_is_read(
    documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_windows, "_LEAST_CHARACTERS", 100_000)  # which are tokenized sooner than four million
    tokenizer, endless = trained(documents, 380), ["\n".join(documents)] * 1000
    long = paired_set(endless, tokenizer, tokenizer, samples=8, length=LENGTH, name="text").new
    assert long.text_end == 100_000 and long.windows.shape == (8, LENGTH)
    assert evaluation_set(endless, tokenizer, samples=8, length=LENGTH, name="text").text_end == 100_000
