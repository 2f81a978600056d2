"""The tokenizers of GGUF files put out the very ids that llama.cpp puts out."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
from gguf import GGUFWriter
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer, GemmaTokenizer, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import generate_merges

from core.engine.exporters.gguf.vocabulary import read_vocabulary
from core.engine.exporters.probe_lines import varied_lines
from core.engine.models.gguf_header import read_gguf_header
from core.engine.models.gguf_tokenizer import PRE_TOKENIZERS, build_tokenizer
from secateur_wire.errors import InvalidRequest, UnusableModel
from tests.gguf.files import Merges, finish, train_byte_level, write_byte_level, write_sentencepiece
from tests.gguf.llama_cpp import llama_cpp_ids

LINES = varied_lines(600)
TRAINED_ON = LINES * 3 + varied_lines(2000, seed=1)

NARROWED = {r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": r"[\p{L}&&[^a-z]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": r"[\p{L}&&[^A-Z]]"}
"""Classes of `tekken` and `gpt-4o`: llama.cpp takes ASCII's cases only, and no combining marks; the vocabularies were
made with the classes on the left, and so are read with them here."""


Vocabulary = tuple[list[str], Merges]
Theirs = dict[str, tuple[Path, list[list[int]]]]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return train_byte_level(TRAINED_ON, 3000)


@pytest.fixture(scope="module")
def theirs(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """A file for each pre-tokenizer, and llama.cpp's ids of every line."""
    folder = tmp_path_factory.mktemp("gguf")
    files = [write_byte_level(folder / f"{name}.gguf", name, *vocabulary) for name in PRE_TOKENIZERS]
    return dict(zip(PRE_TOKENIZERS, zip(files, llama_cpp_ids(files, LINES), strict=True), strict=True))


def tokenizer_of(file: Path) -> PreTrainedTokenizerBase:
    with file.open("rb") as stream:
        return build_tokenizer(read_gguf_header(stream, file.name, file.stat().st_size))


def kept(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as a model folder keeps it: saved and opened again."""
    tokenizer.save_pretrained(folder)
    opened: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return opened


def differing(tokenizer: PreTrainedTokenizerBase, lines: list[str], theirs: list[list[int]]) -> list[str]:
    ours = tokenizer(lines)["input_ids"]
    return [line for line, mine, other in zip(lines, ours, theirs, strict=True) if mine != other]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_pre_tokenizer_cuts_as_llama_cpp_does(name: str, theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    file, ids = theirs[name]
    different = differing(tokenizer_of(file), LINES, ids)
    if name == "deepseek-coder":  # its pattern for CJK takes these spaces in; llama.cpp makes them others before
        different = [line for line in different if not {*line} & {*"\u2009\u2028\u3000"}]
    if name in ("tekken", "gpt-4o"):
        (own,) = PRE_TOKENIZERS[name].patterns
        narrowed = own
        for classes, narrower in NARROWED.items():
            narrowed = narrowed.replace(classes, narrower)
        assert all(pieces(own, line) != pieces(narrowed, line) for line in different)
        monkeypatch.setitem(PRE_TOKENIZERS, name, replace(PRE_TOKENIZERS[name], patterns=(narrowed,)))
        different = differing(tokenizer_of(file), LINES, ids)
    assert different == []


def pieces(pattern: str, line: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(line)]


@pytest.mark.parametrize("flags", [{"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}, {}])
def test_texts_begin_and_end_as_the_file_says(flags: dict[str, bool], vocabulary: Vocabulary, tmp_path: Path) -> None:
    lines = [*LINES[:20], "<|begin|>once<|end|> more", "<|end|>"]
    names = ("llama-bpe", "qwen2")
    files = [write_byte_level(tmp_path / f"{name}.gguf", name, *vocabulary, **flags) for name in names]
    for file, theirs in zip(files, llama_cpp_ids(files, lines), strict=True):
        assert differing(kept(tokenizer_of(file), tmp_path / file.stem), lines, theirs) == []


@pytest.fixture(scope="module")
def pieces_learnt() -> tuple[list[str], list[float], list[int]]:
    """The texts, scores and kinds of a sentencepiece vocabulary."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in TRAINED_ON if line),
        model_writer=written,
        vocab_size=2500,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.995,
        user_defined_symbols=["<think>"],
        minloglevel=2,
        num_threads=1,
    )
    pieces = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue()).pieces
    return [each.piece for each in pieces], [each.score for each in pieces], [each.type for each in pieces]


@pytest.mark.parametrize("flags", [{}, {"add_space_prefix": False}, {"add_eos_token": True, "add_bos_token": False}])
def test_sentencepiece_vocabularies_are_read_as_llama_cpp_reads_them(
    flags: dict[str, bool], pieces_learnt: tuple[list[str], list[float], list[int]], tmp_path: Path
) -> None:
    file = write_sentencepiece(tmp_path / "model.gguf", *pieces_learnt, **flags)
    lines = [*LINES, "<think> a", "  b <think>c</s>d", "\n<think>"]
    (theirs,) = llama_cpp_ids([file], lines)
    assert differing(kept(tokenizer_of(file), tmp_path / "kept"), lines, theirs) == []


def test_vocabularies_are_written_as_they_are_read(
    vocabulary: Vocabulary, pieces_learnt: tuple[list[str], list[float], list[int]], tmp_path: Path
) -> None:
    lines = [*LINES[:300], "<think> a", "  b <think>c</s>d", "<|begin|>once<|end|> more"]
    sources = [write_byte_level(tmp_path / f"{each}.gguf", each, *vocabulary) for each in ("llama-bpe", "default")]
    sources.append(write_sentencepiece(tmp_path / "pieces.gguf", *pieces_learnt))
    sources.append(
        write_sentencepiece(tmp_path / "bare.gguf", *pieces_learnt, add_space_prefix=False, add_eos_token=True)
    )
    opened = {source.stem: kept(tokenizer_of(source), tmp_path / source.stem) for source in sources}
    numbered = {piece: number for number, piece in enumerate(pieces_learnt[0])}
    merges = generate_merges(numbered, dict(zip(*pieces_learnt[:2], strict=True)))
    gemma = GemmaTokenizer(vocab=numbered, merges=merges, bos_token="<s>", eos_token="</s>")
    opened["gemma"] = kept(gemma, tmp_path / "gemma")
    files = []
    for name, tokenizer in opened.items():
        written = read_vocabulary(tmp_path / name, tokenizer, len(tokenizer) + 3)
        files.append(tmp_path / f"{name}-again.gguf")
        writer = GGUFWriter(files[-1], "llama")
        written.add_to(writer, len(tokenizer) + 3)
        finish(writer, files[-1], {})
    for tokenizer, theirs in zip(opened.values(), llama_cpp_ids(files, lines), strict=True):
        assert differing(tokenizer, lines, theirs) == []
    cased = kept(tokenizer_of(write_byte_level(tmp_path / "cased.gguf", "tekken", *vocabulary)), tmp_path / "cased")
    with pytest.raises(InvalidRequest, match="splits texts as none of"):
        read_vocabulary(tmp_path / "cased", cased, len(cased))


@pytest.mark.parametrize("name", ["kimi-k2", None])
def test_a_pre_tokenizer_that_is_not_known_is_refused_by_name(
    name: str | None, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    file = write_byte_level(tmp_path / "model.gguf", name, *vocabulary)
    with pytest.raises(UnusableModel) as refused:
        tokenizer_of(file)
    said = "names the pre-tokenizer 'kimi-k2'" if name else "does not name its pre-tokenizer"
    assert said in refused.value.message and "llama-bpe" in refused.value.message and "smollm" in refused.value.message
