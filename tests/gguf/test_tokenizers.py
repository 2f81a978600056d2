"""The tokenizers of GGUF files put out the very ids that llama.cpp puts out, those of models that lost tokens too."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from gguf import GGUFReader, GGUFWriter
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GemmaTokenizer, LlamaConfig, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import generate_merges

from core.engine.exporters.gguf.vocabulary import read_vocabulary
from core.engine.exporters.probe_lines import varied_lines
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.gguf_header import read_gguf_header
from core.engine.models.gguf_import import PRE_TOKENIZERS, build_tokenizer
from core.engine.vocabulary.choice import choose_tokens
from core.engine.vocabulary.counts import count_tokens
from core.engine.vocabulary.files import write_tokenizer
from core.engine.vocabulary.rows import required_tokens, write_reduced
from core.engine.vocabulary.tokenizer_kinds import read_tokenizer
from secateur_wire.errors import InvalidRequest, UnusableModel
from tests.gguf.cells import export
from tests.gguf.files import Merges, finish, train_byte_level, write_byte_level, write_sentencepiece
from tests.gguf.llama_cpp import llama_cpp_ids
from tests.gguf.test_export import CUT
from tests.gguf.trained import save_trained

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


COUNTED = [line for line in varied_lines(120, seed=3) if line]


def without_tokens(folder: Path, target: Path, tokens: int) -> ModelFolder:
    """Write the model that keeps this number of tokens, chosen by a few lines."""
    dense = open_model(folder)
    chosen = choose_tokens(
        read_tokenizer(folder), count_tokens(COUNTED, folder), tokens=tokens, required=required_tokens(dense)
    )
    assert len(chosen.ids) == tokens < dense.description.vocabulary_size
    write_tokenizer(folder, target, chosen.ids, size=dense.description.vocabulary_size)
    return write_reduced(dense, chosen.ids, target)


def test_byte_level_vocabularies_and_their_merges_are_cut_and_keep_the_name_of_their_splitting(tmp_path: Path) -> None:
    dense = save_trained(tmp_path / "dense", **CUT)
    cut = without_tokens(dense, tmp_path / "cut", 380)
    (exported,) = export(cut.path, "F16").files
    assert exported.kl is not None and exported.kl < 1e-4
    pre, tokens, merges = (
        GGUFReader(cut.path / exported.file).get_field(f"tokenizer.ggml.{each}") for each in ("pre", "tokens", "merges")
    )
    assert pre is not None and tokens is not None and merges is not None
    whole = open_model(dense)
    before = read_vocabulary(dense, whole.tokenizer(), whole.description.vocabulary_size)
    assert pre.contents() == before.pre
    assert tokens.contents() == cut.tokenizer().convert_ids_to_tokens(list(range(380)))
    assert 0 < len(merges.contents()) < len(before.merges)


def test_sentencepiece_vocabularies_are_cut_and_keep_an_order_of_scores_that_gives_the_same_tokens(
    pieces_learnt: tuple[list[str], list[float], list[int]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokenizer = tokenizer_of(write_sentencepiece(tmp_path / "vocabulary.gguf", *pieces_learnt))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    cut = without_tokens(tmp_path / "dense", tmp_path / "cut", 1500)
    (exported,) = export(cut.path, "F16").files
    assert exported.kl is not None and exported.kl < 1e-5
    scores = GGUFReader(cut.path / exported.file).get_field("tokenizer.ggml.scores")
    assert scores is not None and len(scores.contents()) == 1500
