"""Tokenizers of all kinds, cut to the tokens of some texts: whether every kept text has the same tokens, renumbered.

A tokenizer is the model's, or one that is trained on the spec's text.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.removals.vocabulary.tokenizers.choice import choose_tokens
from core.engine.removals.vocabulary.tokenizers.counts import count_tokens
from core.engine.removals.vocabulary.tokenizers.tokenizer_file import TOKENIZER_FILE, parse_tokenizer

_TOKENS: Final = 8192
_BYTES: Final = [f"<0x{number:02X}>" for number in range(256)]
_ALPHABETS: Final = (
    range(0x20, 0x7F),
    range(0xC0, 0x180),
    range(0x391, 0x3CA),
    range(0x410, 0x450),
    range(0x4E00, 0x4E80),
)


def cut(spec: dict[str, Any]) -> dict[str, Any]:
    """Cut the tokenizer of the spec's `family`, or that of its `model`, and compare it with the dense one on texts.

    Tokens are counted on the first half of the documents; the others, paragraph by paragraph, and texts that are drawn
    at random are tokenized by both. `kept` of the `texts` need kept tokens alone, and `alike` of these have the same
    tokens. Texts with the unknown token are left out. `failures` has the first texts that do not.
    """
    file = Path(spec["texts"][spec["text"]])
    documents = list(read_documents(file, detect_format(file)))
    half = len(documents) // 2
    dense = _opened(spec, documents[:half])
    parsed = parse_tokenizer(json.loads(dense.to_str()))
    with TemporaryDirectory() as place:
        (Path(place) / TOKENIZER_FILE).write_text(dense.to_str())
        counts = count_tokens(documents[:half], Path(place))
    chosen = choose_tokens(parsed, counts, tokens=round(spec["share"] * parsed.size))
    reduced = Tokenizer.from_str(json.dumps(parsed.reduced(chosen.ids)))
    names, kept_ids = chosen.ids, frozenset(chosen.ids)
    unknown = _unknown_token(dense)
    texts = kept = alike = 0
    failures: list[str] = []
    for text in _texts(documents[half:], spec["drawn"]):
        texts += 1
        ids = dense.encode(text, add_special_tokens=False).ids
        if unknown in ids or not kept_ids.issuperset(ids):
            continue
        kept += 1
        if [names[each] for each in reduced.encode(text, add_special_tokens=False).ids] == ids:
            alike += 1
        elif len(failures) < 5:
            failures.append(text[:200])
    return {
        "kind": type(parsed).__name__,
        "tokens": parsed.size,
        "left": len(names),
        "texts": texts,
        "kept": kept,
        "alike": alike,
        "failures": failures,
    }


def _texts(documents: list[str], drawn: int) -> Iterator[str]:
    """Yield paragraphs, and as many texts as `drawn` of words of these in another order, with other characters."""
    words: list[str] = []
    for document in documents:
        yield from (paragraph for paragraph in document.splitlines() if paragraph.strip())
        words += document.split()
    generator = numpy.random.default_rng(0)
    characters = [chr(number) for alphabet in _ALPHABETS for number in alphabet]
    for _ in range(drawn):
        parts = [words[number] for number in generator.integers(0, len(words), generator.integers(1, 12))]
        if generator.random() < 0.3:
            parts.insert(0, "".join(characters[number] for number in generator.integers(0, len(characters), 3)))
        yield str(generator.choice([" ", "  ", "\n", "-", ""])).join(parts)


def _opened(spec: Mapping[str, Any], documents: list[str]) -> Tokenizer:
    train = _TRAINED.get(spec["family"])
    return Tokenizer.from_file(str(Path(spec["model"]) / TOKENIZER_FILE)) if train is None else train(documents)


def _byte_level(documents: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(documents, trainers.BpeTrainer(vocab_size=_TOKENS, initial_alphabet=alphabet))
    return tokenizer


def _byte_fallback(documents: list[str], *, ignores_merges: bool) -> Tokenizer:
    """Return a BPE of characters, with a token for each byte of characters that it does not have, as Llama's is."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>", *_BYTES]
    trainer = trainers.BpeTrainer(vocab_size=_TOKENS, special_tokens=special, limit_alphabet=300)
    tokenizer.train_from_iterator(documents, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] not in _BYTES]
    content["model"]["ignore_merges"] = ignores_merges
    return Tokenizer.from_str(json.dumps(content))


def _unigram(documents: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=_TOKENS, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def _word_piece(documents: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(documents, trainers.WordPieceTrainer(vocab_size=_TOKENS, special_tokens=["[UNK]"]))
    return tokenizer


_TRAINED: Final[Mapping[str, Callable[[list[str]], Tokenizer]]] = {
    "byte-level BPE": _byte_level,
    "byte-fallback BPE": lambda documents: _byte_fallback(documents, ignores_merges=False),
    "byte-fallback BPE, ignore_merges": lambda documents: _byte_fallback(documents, ignores_merges=True),
    "Unigram": _unigram,
    "WordPiece": _word_piece,
}


def _unknown_token(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    return None if not model.get("unk_token") else tokenizer.token_to_id(model["unk_token"])
