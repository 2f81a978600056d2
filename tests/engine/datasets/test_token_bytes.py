"""Tokenizers: the bytes for which tokens stand, and files that are made to take for ever."""

import io
import unicodedata
from itertools import accumulate

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from core.engine.datasets.token_bytes import TokenBytes, token_ids
from core.engine.exporters.probe_lines import varied_lines
from secateur_wire.errors import UnusableModel

LINES = [line for line in varied_lines(300) if line]
TEXTS = st.text(max_size=60) | st.text(alphabet="aé e\u0301ﬁ ▁①🙂\n<0x1>", max_size=60)
END = "<|end|>"


def byte_level(*, composes: bool = False, space: bool = False) -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE())
    if composes:
        backend.normalizer = normalizers.NFC()  # type: ignore[assignment]
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)  # type: ignore[assignment]
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )  # fmt: skip
    backend.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END, unk_token=END)


def unigram() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()  # type: ignore[assignment]
    backend.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )  # fmt: skip
    backend.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def word_piece() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False)
    backend.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def byte_fallback() -> PreTrainedTokenizerBase:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=written, vocab_size=700, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99, minloglevel=2,
        num_threads=1,
    )  # fmt: skip
    pieces = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue()).pieces
    numbered = {each.piece: number for number, each in enumerate(pieces)}
    merges = generate_merges(numbered, {each.piece: each.score for each in pieces})
    return LlamaTokenizer(vocab=numbered, merges=merges, add_bos_token=True)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    return {
        "byte-level": byte_level(),
        "byte-level, composing": byte_level(composes=True),
        "byte-level, a space first": byte_level(space=True),
        "byte fallback": byte_fallback(),
        "unigram": unigram(),
        "word pieces": word_piece(),
    }


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@given(TEXTS)
@example("e\u0301 ﬁ ① ▁ 🙂🙂\n\n")
def test_the_bytes_of_all_tokens_are_those_of_the_text(
    tokenizers: dict[str, PreTrainedTokenizerBase], text: str
) -> None:
    for name, tokenizer in tokenizers.items():
        ids = ids_of(tokenizer, text)
        counts = TokenBytes(tokenizer).count(text, ids)
        assert counts is not None and len(counts) == len(ids) and all(count >= 0 for count in counts), name
        assert sum(counts) == (len(text.encode()) if ids else 0), name
    level, pieces = tokenizers["byte-level"], tokenizers["word pieces"]
    assert sum(TokenBytes(level).count(f"a{END}b", ids_of(level, f"a{END}b")) or []) == 2, "a special token has none"
    assert TokenBytes(pieces).count("🙂", ids_of(pieces, "🙂")) == [4], "an unknown one has those of its text"


@given(TEXTS)
def test_tokens_of_bytes_count_each_their_own(tokenizers: dict[str, PreTrainedTokenizerBase], text: str) -> None:
    """A character that is cut into several tokens gives each its part."""
    level, fallback = tokenizers["byte-level"], tokenizers["byte fallback"]
    ids = ids_of(level, text)
    assert TokenBytes(level).count(text, ids) == [len(token) for token in level.convert_ids_to_tokens(ids)]
    if "▁" in text:  # which a space is in these tokens
        return
    ids = ids_of(fallback, text)
    tokens = fallback.convert_ids_to_tokens(ids)
    own = [1 if token.startswith("<0x") else len(token.replace("▁", " ").encode()) for token in tokens]
    if own:
        own[0] -= not text.startswith(" ")  # a space is put before the text
    assert TokenBytes(fallback).count(text, ids) == own


@given(TEXTS)
def test_tokens_with_places_count_to_where_they_end(tokenizers: dict[str, PreTrainedTokenizerBase], text: str) -> None:
    rewritten = unicodedata.normalize("NFKC", text) != text
    for name in ("unigram", "word pieces") if rewritten else ("word pieces",):
        tokenizer = tokenizers[name]
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"]][:-1]
        counts = TokenBytes(tokenizer).count(text, encoded["input_ids"])
        assert counts is not None
        assert [*accumulate(counts)][:-1] == [len(text[:end].encode()) for end in accumulate(ends, max)], name


TRIES = "(a+)+$"
"""Tries every way to part a row of a's, where something else follows."""


def tokenizer_with(**parts: object) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"?": 0, "b": 1}, unk_token="?"))
    for name, part in parts.items():
        setattr(backend, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": pre_tokenizers.Split(Regex(TRIES), "isolated")},
        {"normalizer": normalizers.Replace(Regex(TRIES), "b")},
    ],
    ids=["pre_tokenizer", "normalizer"],
)
def test_a_pattern_that_backtracks_without_end_is_an_error_of_the_model(parts: dict[str, object]) -> None:
    tokenizer = tokenizer_with(**parts)
    assert token_ids("a a a", tokenizer)
    with pytest.raises(UnusableModel, match=r"the model's tokenizer fails on a text of 41 characters: .*retry-limit"):
        token_ids("a" * 40 + "b", tokenizer)
