"""GGUF files of models that lost tokens: llama.cpp reads texts as the reduced tokenizer does, and predicts the same."""

import io
from pathlib import Path

import sentencepiece
import torch
from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from core.engine.exporters.gguf.vocabulary import read_vocabulary
from core.engine.exporters.probe_lines import varied_lines
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.gguf_header import read_gguf_header
from core.engine.models.gguf_tokenizer import build_tokenizer
from core.engine.removals.vocabulary.rows import required_tokens, write_reduced
from core.engine.removals.vocabulary.tokenizers.choice import choose_tokens
from core.engine.removals.vocabulary.tokenizers.counts import count_tokens
from core.engine.removals.vocabulary.tokenizers.files import write_tokenizer
from core.engine.removals.vocabulary.tokenizers.tokenizer_file import read_tokenizer
from tests.gguf.cells import export
from tests.gguf.files import write_sentencepiece
from tests.gguf.test_export import CUT
from tests.gguf.trained import save_trained

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


def test_sentencepiece_vocabularies_keep_an_order_of_scores_that_gives_the_same_tokens(tmp_path: Path) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(COUNTED * 4 + varied_lines(1000, seed=1)[1:]),
        model_writer=written,
        vocab_size=1200,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.995,
        minloglevel=2,
        num_threads=1,
    )
    pieces = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue()).pieces
    columns = ([each.piece for each in pieces], [each.score for each in pieces], [each.type for each in pieces])
    file = write_sentencepiece(tmp_path / "vocabulary.gguf", *columns)
    with file.open("rb") as stream:
        tokenizer = build_tokenizer(read_gguf_header(stream, file.name, file.stat().st_size))
    save_model(tmp_path / "dense", tokenizer)
    cut = without_tokens(tmp_path / "dense", tmp_path / "cut", 900)
    (exported,) = export(cut.path, "F16").files
    assert exported.kl is not None and exported.kl < 1e-5
    scores = GGUFReader(cut.path / exported.file).get_field("tokenizer.ggml.scores")
    assert scores is not None and len(scores.contents()) == 900


def save_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Save a random Llama with a tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
